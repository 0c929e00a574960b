#![forbid(unsafe_code)]
fn main() {
    for crd in holdfast::api::crds() {
        print!("---\n{}", serde_yaml::to_string(&crd).unwrap());
    }
}
