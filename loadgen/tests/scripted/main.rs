//! The client against a scripted broker: partial frames, lost connections, silence that is asked for, errors of every kind.

mod control;
mod load;
mod peer;
