//! `${worker_index}` and its like, in an interface's name and in variables.

use std::collections::BTreeMap;

use crate::hint::{instead, shown};

/// Puts in what is between `${` and `}`; `\${` is `${` itself.
pub(super) fn fill(text: &str, values: &BTreeMap<&str, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('\\') {
            filled.push_str(before);
            filled.push_str("${");
            rest = behind;
            continue;
        }
        filled.push_str(before);
        let (name, behind) =
            behind.split_once('}').ok_or_else(|| format!("{} has a `${{` without its `}}`", shown(text)))?;
        let value = values.get(name);
        let unknown = || format!("{} is no variable: {}", shown(name), instead(name, values.keys().copied()));
        filled.push_str(value.ok_or_else(unknown)?);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_others_refused() {
        let values = BTreeMap::from([("worker_index", "3".to_owned()), ("worker_cpu", "7".to_owned())]);
        for (text, want) in [
            ("eth0", Ok("eth0")),
            ("a${worker_index}b${worker_cpu}", Ok("a3b7")),
            (r"\${worker_index}", Ok("${worker_index}")),
            ("$worker_index $", Ok("$worker_index $")),
            ("${worker_idx}", Err("did you mean `worker_index`?")),
            ("${worker_index", Err("without its `}`")),
        ] {
            match (fill(text, &values), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{text}: {got:?}, {want:?}"),
            }
        }
    }
}
