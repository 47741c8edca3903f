//! The tools that a model may call: a clock and a calculator, and two tools that change files.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{json, Value};

use crate::changes::{self, Change};

/// The longest expression that is evaluated, in bytes.
const LONGEST_SUM: usize = 500;

/// A call of a tool, with its arguments.
#[derive(Debug)]
pub(crate) enum Tool {
    Clock,
    Calculator(String),
    /// A tool that changes something, so that the user is asked first.
    Change(Change),
}

#[derive(Deserialize)]
struct Sum {
    expression: String,
}

/// The names of the tools.
const NAMES: [&str; 4] = ["clock", "calculator", "write_file", "note"];
/// The names of the tools that change something.
pub(crate) const CHANGING: [&str; 2] = ["write_file", "note"];

/// The descriptions of the tools for the model.
pub(crate) fn described() -> Value {
    json!([
        function("clock", "The current date and time.", &[]),
        function("calculator", "The value of an arithmetic expression, such as (2 + 3) * sqrt(7)^2.", &["expression"]),
        function(
            "write_file",
            "Writes a text file in the working directory or below it, and replaces an old one. The path is relative. \
             The user may refuse.",
            &["path", "content"]
        ),
        function("note", "Adds a note to the user's notes. The user may refuse.", &["text"]),
    ])
}

/// A tool whose parameters are texts, all of them required.
fn function(name: &str, description: &str, parameters: &[&str]) -> Value {
    let properties: serde_json::Map<String, Value> =
        parameters.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !parameters.is_empty() {
        schema["required"] = json!(parameters);
    }
    json!({ "type": "function", "function": { "name": name, "description": description, "parameters": schema } })
}

/// Whether a tool has this name.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether this is the name of a tool, or the beginning of one.
pub(crate) fn is_begun(name: &str) -> bool {
    NAMES.iter().any(|known| known.starts_with(name))
}

impl Tool {
    /// The tool with this name and these arguments. The error is a text for the model.
    pub(crate) fn new(name: &str, args: &str) -> Result<Self, String> {
        match name {
            "clock" => Ok(Self::Clock),
            "calculator" => {
                let Sum { expression } = serde_json::from_str(args).map_err(|error| error.to_string())?;
                Ok(Self::Calculator(expression))
            }
            "write_file" => changes::write_file(args).map(Self::Change),
            "note" => changes::note(args).map(Self::Change),
            unknown => Err(format!("there is no tool '{unknown}'")),
        }
    }

    /// What the tool changes, for the question to the user. `None` if it changes nothing.
    pub(crate) fn change(&self) -> Option<String> {
        match self {
            Self::Change(change) => Some(change.described()),
            Self::Clock | Self::Calculator(_) => None,
        }
    }

    /// Runs the tool. The error is a text for the model.
    pub(crate) fn run(self) -> Result<String, String> {
        match self {
            Self::Clock => Ok(httpdate::fmt_http_date(SystemTime::now())),
            Self::Calculator(expression) => calculate(&expression),
            Self::Change(change) => change.make(),
        }
    }
}

fn calculate(expression: &str) -> Result<String, String> {
    if expression.len() > LONGEST_SUM {
        return Err("that is too long".into());
    }
    let value: f64 = exmex::eval_str(expression).map_err(|error| error.to_string())?;
    Ok(value.to_string())
}
