//! The inventory as a program: the demo's service to call. Prints its address, then serves until it is killed.

use std::net::SocketAddr;

use holdfast_e2e::inventory::Inventory;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let inventory = Inventory::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("{}", inventory.address);
    std::future::pending().await
}
