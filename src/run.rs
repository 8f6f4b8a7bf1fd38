//! Starts and joins the actors of each mode; embedders begin here.
