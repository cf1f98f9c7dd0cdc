//! The real binary, from outside: started, killed, restarted, and asked by stock clients.

mod broker {
    pub mod clients;
    pub mod durability;
    pub mod hostile;
    pub mod process;
    pub mod start;
}
