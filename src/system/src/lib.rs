//! What touches the machine.
