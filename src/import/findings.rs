//! What is wrong with files, and what is worth a remark.

use std::fmt;

use crate::model::cluster_file::Complaint;

/// After so many of either reading goes on in silence.
const MAX: usize = 1000;

/// A remark about a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// As it was named.
    pub file: String,
    pub at: Complaint,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.at)
    }
}

/// Why nothing could be imported: every complaint, one a line when shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ImportError {
    /// By file and line; never empty.
    pub complaints: Vec<Remark>,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.complaints.iter().enumerate() {
            write!(f, "{}{complaint}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// What was found in one file so far.
#[derive(Debug)]
pub(super) struct Findings {
    file: String,
    wrong: Vec<Remark>,
    remarks: Vec<Remark>,
}

impl Findings {
    pub(super) fn of(file: &str) -> Self {
        Self { file: file.to_owned(), wrong: Vec::new(), remarks: Vec::new() }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_fine(&self) -> bool {
        self.wrong.is_empty()
    }

    /// It cannot be read as what it is meant to be.
    pub(super) fn wrong(&mut self, at: Complaint) {
        keep(&mut self.wrong, &self.file, at);
    }

    /// It is not carried over, or not as it was.
    pub(super) fn remark(&mut self, at: Complaint) {
        keep(&mut self.remarks, &self.file, at);
    }

    /// The remarks about all files, unless one of them is wrong.
    pub(super) fn sum(all: impl IntoIterator<Item = Self>) -> Result<Vec<Remark>, ImportError> {
        let (mut wrong, mut remarks) = (Vec::new(), Vec::new());
        for mut one in all {
            one.wrong.sort_by_key(|found| found.at.line);
            one.remarks.sort_by_key(|found| found.at.line);
            wrong.append(&mut one.wrong);
            remarks.append(&mut one.remarks);
        }
        match wrong.is_empty() {
            true => Ok(remarks),
            false => Err(ImportError { complaints: wrong }),
        }
    }
}

fn keep(list: &mut Vec<Remark>, file: &str, at: Complaint) {
    if list.len() < MAX {
        list.push(Remark { file: file.to_owned(), at });
    }
}
