//! A prompt of the client as text.

use agent_client_protocol_schema::v1::{ContentBlock, EmbeddedResourceResource, Error};
use serde_json::Value;

/// The text of a prompt, for the agent. Blocks follow each other without a separator: clients split a text at its
/// mentions of files.
///
/// # Errors
/// `Invalid params` for content that the agent has not said it can take.
pub(super) fn text_of(prompt: &[ContentBlock]) -> Result<String, Error> {
    let mut text = String::new();
    for block in prompt {
        match block {
            ContentBlock::Text(part) => text.push_str(&part.text),
            ContentBlock::ResourceLink(link) => text.push_str(&format!("[{}]({})", link.name, link.uri)),
            ContentBlock::Resource(embedded) => match &embedded.resource {
                EmbeddedResourceResource::TextResourceContents(resource) => {
                    let end = if resource.text.ends_with('\n') { "" } else { "\n" };
                    let (uri, content) = (&resource.uri, &resource.text);
                    text.push_str(&format!("\n<resource uri=\"{uri}\">\n{content}{end}</resource>\n"));
                }
                _ => return Err(refused("an embedded resource that is not text")),
            },
            ContentBlock::Image(_) => return Err(refused("an image")),
            ContentBlock::Audio(_) => return Err(refused("audio")),
            _ => return Err(refused("content of an unknown type")),
        }
    }
    Ok(text)
}

fn refused(what: &str) -> Error {
    Error::invalid_params().data(Value::from(format!("the agent does not take {what} in a prompt")))
}

#[cfg(test)]
mod tests {
    use agent_client_protocol_schema::v1::{
        BlobResourceContents, EmbeddedResource, ImageContent, ResourceLink, TextResourceContents,
    };

    use super::*;

    fn embedded(resource: EmbeddedResourceResource) -> ContentBlock {
        ContentBlock::Resource(EmbeddedResource::new(resource))
    }

    #[test]
    fn text_links_and_embedded_text_become_one_text() {
        let file = TextResourceContents::new("fn main() {}", "file:///a.rs");
        let prompt = [
            "explain ".into(),
            ContentBlock::ResourceLink(ResourceLink::new("a.rs", "file:///a.rs")),
            ", please".into(),
            embedded(EmbeddedResourceResource::TextResourceContents(file)),
        ];
        let text = "explain [a.rs](file:///a.rs), please\n<resource uri=\"file:///a.rs\">\nfn main() {}\n</resource>\n";
        assert_eq!(text_of(&prompt), Ok(text.to_owned()));
        assert_eq!(text_of(&[]), Ok(String::new()));
    }

    #[test]
    fn content_that_was_not_offered_is_refused() {
        let blob = BlobResourceContents::new("AAAA", "file:///a.bin");
        for block in [
            ContentBlock::Image(ImageContent::new("AAAA", "image/png")),
            embedded(EmbeddedResourceResource::BlobResourceContents(blob)),
        ] {
            assert_eq!(i32::from(text_of(&[block]).unwrap_err().code), -32602);
        }
    }
}
