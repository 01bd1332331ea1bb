//! Linux's signals: number to name, and what each does by default (signal(7)).
