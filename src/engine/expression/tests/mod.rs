mod api;
mod bounds;
mod vectors;
