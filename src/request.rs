//! Open requests: parent, who still owes an answer, deadline.
