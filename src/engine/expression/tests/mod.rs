mod api;
mod bounds;
