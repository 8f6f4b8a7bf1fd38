//! What a client of the HTTP API may do.

use std::fmt;

use super::Part;

/// Who may more may also what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// See everything, change nothing.
    Observe,
    /// Change things as well.
    Operate,
}

impl Access {
    /// The part of the cluster whose certificate says so.
    pub fn part(self) -> Part {
        match self {
            Self::Observe => Part::Observer,
            Self::Operate => Part::Operator,
        }
    }

    /// What somebody with the certificate of this part may do at the API, if anything.
    pub fn of(part: Part) -> Option<Self> {
        match part {
            Part::Observer => Some(Self::Observe),
            Part::Operator => Some(Self::Operate),
            Part::Authority | Part::Controller | Part::Agent => None,
        }
    }

    /// The word for it, in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Operate => "operate",
        }
    }

    /// The opposite of [`Self::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Observe, Self::Operate].into_iter().find(|access| access.as_str() == word)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
