//! Keys that mean something to APIs of another protocol only: they are said to do nothing rather than left to be
//! wondered about.

use super::Building;
use crate::api::file;
use crate::steps::integrations::Settings as Integration;

impl Building<'_> {
    /// Keys that mean something to APIs of another protocol only.
    pub(super) fn check_protocol(&mut self, api: &file::Api) {
        let problems = &mut self.problems;
        match api.protocol {
            file::Protocol::Websocket => {
                if api.route_selection_expression.is_none() {
                    let help = "write what finds the route key in a message, such as `$request.body.action`";
                    problems.problem_with_help(&api.place, "`route_selection_expression` is missing", help);
                }
                if let Some(cors) = &api.cors {
                    let found = "browsers ask for no permission to open a WebSocket, so `cors` does nothing here";
                    problems.problem_with_help(&cors.place, found, "leave it out");
                }
                for entry in &api.routes {
                    let Integration::HttpProxy(proxy) = &entry.value.integration else { continue };
                    let of_http = [
                        ("payload_format", proxy.payload_format.is_some()),
                        ("method", proxy.method.is_some()),
                        ("response_parameters", !proxy.response_parameters.is_empty()),
                    ];
                    for (key, _) in of_http.into_iter().filter(|(_, is_written)| *is_written) {
                        let found = format!("`{key}` belongs to routes of HTTP APIs");
                        problems.problem_with_help(&proxy.place, found, "leave it out");
                    }
                }
                for entry in &api.routes {
                    let route = &entry.value;
                    let of_connect = [
                        ("authorizer", route.authorizer.is_some()),
                        ("authorization_scopes", !route.authorization_scopes.is_empty()),
                        ("api_key_required", route.api_key_required),
                    ];
                    for (key, _) in
                        of_connect.into_iter().filter(|(_, is_written)| *is_written && entry.name != "$connect")
                    {
                        let found = format!("`{key}` stands at `$connect`, and holds for the whole connection");
                        let help =
                            "move it there; what single messages may, their backend decides by X-Livegate-Authorizer-…";
                        problems.problem_with_help(&route.place, found, help);
                    }
                    if route.refreshes_authorization && matches!(&*entry.name, "$connect" | "$disconnect") {
                        let found = "a fresh token comes with a message, and this route has none";
                        problems.problem_with_help(
                            &route.place,
                            found,
                            "move `refreshes_authorization` to a route of messages",
                        );
                    }
                    if entry.name == "$disconnect"
                        && (route.throttle.as_ref().is_some_and(|throttle| throttle.0.is_some())
                            || !route.resource_policy.is_empty())
                    {
                        let found = "a connection that has ended cannot be turned away";
                        problems.problem_with_help(&route.place, found, "leave out `throttle` and `resource_policy`");
                    }
                }
                for entry in api.routes.iter().filter(|entry| entry.value.upgrade) {
                    let found = "`upgrade` belongs to routes of HTTP APIs: the gateway speaks WebSocket here itself";
                    problems.problem_with_help(&entry.value.place, found, "leave it out");
                }
            }
            file::Protocol::Http => {
                if let Some(written) = &api.route_selection_expression {
                    let found = "HTTP APIs select routes by method and path";
                    problems.problem_with_help(&written.place, found, "leave out `route_selection_expression`");
                }
                for entry in api.routes.iter().filter(|entry| entry.value.refreshes_authorization) {
                    let found = "a request of HTTP brings its token every time";
                    problems.problem_with_help(&entry.value.place, found, "leave out `refreshes_authorization`");
                }
                if let Some(written) = &api.connections_api {
                    let found = "an HTTP API has no connections to push to";
                    problems.problem_with_help(&written.place, found, "leave out `connections_api`");
                }
            }
        }
    }

    /// Limits that stages of the other kind have.
    pub(super) fn check_limits(&mut self, stage: &file::Stage, is_of_sockets: bool) {
        let limits = &stage.limits;
        if is_of_sockets && limits.requests_per_address.0.is_some() {
            let found = "`requests_per_address` belongs to stages of HTTP APIs";
            self.problems.problem_with_help(
                &limits.place,
                found,
                "write `connects_per_address` or `messages_per_connection`",
            );
        }
        for (key, _) in limits.of_sockets().into_iter().filter(|(_, is_written)| *is_written && !is_of_sockets) {
            let found = format!("`{key}` belongs to stages of WebSocket APIs");
            self.problems.problem_with_help(&limits.place, found, "write `requests_per_address`, or leave it out");
        }
    }
}
