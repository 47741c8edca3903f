//! The tools that a model may call: a clock and a calculator. Neither changes anything.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{json, Value};

/// The longest expression that is evaluated, in bytes.
const LONGEST_SUM: usize = 500;

#[derive(Deserialize)]
struct Sum {
    expression: String,
}

/// The names of the tools.
const NAMES: [&str; 2] = ["clock", "calculator"];

/// The descriptions of the tools for the model.
pub(crate) fn described() -> Value {
    json!([
        {
            "type": "function",
            "function": {
                "name": "clock",
                "description": "The current date and time.",
                "parameters": { "type": "object", "properties": {} }
            }
        },
        {
            "type": "function",
            "function": {
                "name": "calculator",
                "description": "The value of an arithmetic expression, such as (2 + 3) * sqrt(7)^2.",
                "parameters": {
                    "type": "object",
                    "properties": { "expression": { "type": "string" } },
                    "required": ["expression"]
                }
            }
        }
    ])
}

/// Whether a tool has this name.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether this is the name of a tool, or the beginning of one.
pub(crate) fn is_begun(name: &str) -> bool {
    NAMES.iter().any(|known| known.starts_with(name))
}

/// Runs a tool. The error is a text for the model.
pub(crate) fn run(name: &str, args: &str) -> Result<String, String> {
    match name {
        "clock" => Ok(httpdate::fmt_http_date(SystemTime::now())),
        "calculator" => calculate(args),
        unknown => Err(format!("there is no tool '{unknown}'")),
    }
}

fn calculate(args: &str) -> Result<String, String> {
    let Sum { expression } = serde_json::from_str(args).map_err(|error| error.to_string())?;
    if expression.len() > LONGEST_SUM {
        return Err("that is too long".into());
    }
    let value: f64 = exmex::eval_str(&expression).map_err(|error| error.to_string())?;
    Ok(value.to_string())
}
