//! What an operator may rely on from an API server, as checks that run on any: on this crate's server and on the real
//! one. Where they disagree, this crate is wrong.
//!
//! The checks send plain HTTP requests, so that they say exactly what is on the wire. They need a namespace of their
//! own, in which nothing else writes, and cluster-admin's rights. Whoever runs them on this crate's server must deny
//! everything to the user [`STRANGER`], as RBAC does.

mod applying;
mod cluster;
mod creating;
mod deleting;
pub mod differential;
mod listing;
mod serving;
mod subresources;
mod updating;
mod watching;

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, future::LocalBoxFuture};
use kube::Client;

use cluster::Cluster;

/// The user who may do nothing.
pub const STRANGER: &str = "conformance-stranger";

/// One thing that a server must do.
pub struct Check {
    /// The file and function of the check: `updating::a_stale_put_is_a_conflict`.
    pub name: &'static str,
    run: fn(Cluster) -> LocalBoxFuture<'static, ()>,
}

impl Check {
    /// Runs it on a server; the error says what the server did instead.
    pub async fn run(&self, client: Client, namespace: &str) -> Result<(), String> {
        let cluster = Cluster::new(client, namespace);
        AssertUnwindSafe((self.run)(cluster))
            .catch_unwind()
            .await
            .map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default();
                // Some answers are long.
                text.chars().take(2000).collect()
            })
    }
}

/// Installs what the checks need: their custom resource and the namespace. Returns when both are served.
pub async fn prepare(client: Client, namespace: &str) {
    Cluster::new(client, namespace).prepare().await;
}

/// Runs all checks, one after the other, and returns the failures.
pub async fn run_all(client: Client, namespace: &str) -> Vec<String> {
    prepare(client.clone(), namespace).await;
    let mut failures = Vec::new();
    for check in checks() {
        if let Err(why) = check.run(client.clone(), namespace).await {
            failures.push(format!("{}: {why}", check.name));
        }
    }
    failures
}

macro_rules! checks {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        /// All checks.
        pub fn checks() -> Vec<Check> {
            vec![$($(Check {
                name: concat!(stringify!($module), "::", stringify!($name)),
                run: |cluster| $module::$name(cluster).boxed_local(),
            },)+)+]
        }
    };
}

checks! {
    creating:
        the_server_sets_metadata, an_existing_name_is_refused, names_are_checked, names_are_generated,
        namespaces_must_match_and_exist, the_body_must_fit_the_path, unknown_fields_are_pruned,
        defaults_are_filled_in, every_wrong_field_is_named, metadata_is_checked, a_dry_run_stores_nothing,
        secrets_encode_their_strings;
    updating:
        a_put_needs_the_current_version, a_put_of_another_uid_is_a_conflict, built_in_kinds_take_unversioned_puts,
        a_put_of_what_is_not_there_is_not_found, a_write_without_a_change_keeps_the_version,
        generation_counts_changes_of_the_spec, the_main_endpoint_ignores_status,
        the_status_endpoint_changes_nothing_else, a_status_is_checked_and_pruned, a_merge_patch_merges,
        a_merge_patch_can_carry_a_version, a_json_patch_can_test, patches_must_be_of_a_known_type,
        identity_is_immutable, immutable_config_maps_stay, a_lease_is_guarded_by_its_version;
    deleting:
        a_delete_says_what_is_gone, options_in_the_body_replace_the_query, preconditions_hold, finalizers_hold_an_object,
        dependents_follow_their_owner, a_dependent_of_two_owners_stays, a_dependent_of_nobody_goes,
        foreground_deletion_waits_for_dependents, orphans_stay, jobs_orphan_by_default, collections_are_deleted,
        a_name_can_be_used_again, a_terminating_namespace_takes_nothing_new;
    listing:
        labels_select, fields_select, lists_come_in_pages, a_page_is_of_its_list, versions_select,
        items_of_built_in_kinds_do_not_say_kind, metadata_can_be_listed_alone;
    watching:
        changes_come_in_order, a_watch_starts_from_a_version, a_watch_can_start_with_a_list,
        a_streaming_list_ends_with_a_bookmark, selectors_turn_changes_into_additions_and_deletions,
        a_watch_ends_in_time, an_old_version_is_gone, writes_that_change_nothing_are_not_seen,
        all_namespaces_can_be_watched;
    applying:
        an_apply_creates, an_apply_needs_a_manager, owned_fields_conflict, force_takes_fields,
        what_is_no_longer_applied_goes, lists_merge_by_key, an_equal_apply_changes_nothing,
        an_update_takes_fields_over, a_status_can_be_applied, what_does_not_fit_the_schema_is_an_error;
    subresources:
        a_custom_scale_changes_replicas, a_deployment_scales, a_missing_pod_has_no_log,
        evictions_respect_budgets, a_service_account_has_tokens;
    serving:
        resources_are_discovered, unknown_paths_are_not_found, methods_are_checked, the_server_is_ready,
        answers_carry_the_time, strangers_are_forbidden;
}
