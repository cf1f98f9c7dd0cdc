//! The real binary, from outside: started, killed, restarted, and asked by stock clients.

mod broker {
    pub mod bounds;
    pub mod check;
    pub mod clients;
    pub mod confined;
    pub mod cores;
    pub mod dev;
    pub mod durability;
    pub mod epochs;
    pub mod full;
    pub mod hostile;
    pub mod mount;
    pub mod names;
    pub mod offline;
    pub mod process;
    pub mod refused;
    pub mod start;
}
