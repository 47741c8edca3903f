//! The text form of an agent's instructions.

use std::fmt;
use std::str::FromStr;

use crate::history::Uid;
use crate::plan::Script;

/// The content of a prompt or an interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) uid: Uid,
    pub(crate) script: Script,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, figure) = match self.script {
            Script::Answer(times) => ("answer", times),
            Script::Fail(times) => ("fail", times),
            Script::Panic(times) => ("panic", times),
            Script::Hold => ("hold", 0),
            Script::Deaf(times) => ("deaf", times),
            Script::Cost(tokens) => ("cost", tokens),
        };
        write!(f, "{} {name} {figure}", self.uid)
    }
}

impl FromStr for Task {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut next = || words.next().ok_or(());
        let uid = next()?.parse().map_err(drop)?;
        let name = next()?;
        let figure = next()?.parse().map_err(drop)?;
        let script = match name {
            "answer" => Script::Answer(figure),
            "fail" => Script::Fail(figure),
            "panic" => Script::Panic(figure),
            "hold" => Script::Hold,
            "deaf" => Script::Deaf(figure),
            "cost" => Script::Cost(figure),
            _ => return Err(()),
        };
        Ok(Self { uid, script })
    }
}
