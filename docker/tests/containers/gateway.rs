//! The image of the gateway.

use crate::engine::{Recipe, configuration, router_image};

#[test]
fn the_gateway_needs_nothing_but_its_own_program() {
    let gateway = Recipe::router()
        .read_only()
        .without_capabilities()
        .without_new_privileges();
    assert!(
        gateway
            .run(&["--version"])
            .well()
            .starts_with("edit-router ")
    );
    let ended = gateway.run(&[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let said = format!("{}{}", ended.said, ended.complained);
    assert!(said.contains("EDIT_DOMAIN is not set"), "{said}");

    let configuration = configuration(&router_image());
    assert_eq!(configuration["User"], "10001:10001");
    assert_eq!(
        configuration["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/usr/local/bin/edit-router", "health"])
    );
}
