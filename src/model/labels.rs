//! The labels of a session, as answers show them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use crate::sync::Arc;

/// The labels of a session: a read-only map. Clones share it, and a clone without labels costs
/// nothing; most listed sessions have none.
///
/// ```
/// use std::collections::BTreeMap;
/// use turnwise::Labels;
///
/// let labels = Labels::from(BTreeMap::from([("user".to_owned(), "ada".to_owned())]));
/// assert_eq!(labels["user"], "ada");
/// assert!(labels.get("project").is_none());
/// ```
#[derive(Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>"))]
pub struct Labels(Option<Arc<BTreeMap<String, String>>>);

static NONE: BTreeMap<String, String> = BTreeMap::new();

impl Deref for Labels {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self((!labels.is_empty()).then(|| Arc::new(labels)))
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        (*labels).clone()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Labels {}

impl PartialEq<BTreeMap<String, String>> for Labels {
    fn eq(&self, other: &BTreeMap<String, String>) -> bool {
        **self == *other
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
