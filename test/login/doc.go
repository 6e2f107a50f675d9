// Package login drives a real browser through logins: Debian's Chromium, by WebDriver, in front of gatehouse run on files, with a whole
// OpenID provider (zitadel/oidc) behind it. Unit tests know what cookies, redirects and tokens look like; what a browser makes of them (the
// prefix __Host-, SameSite across two sites, several tabs, cookies that are blocked, Fetch Metadata) only a browser shows.
//
// It is a module of its own, so that the product needs none of the provider's dependencies. hack/chromium.sh finds or installs the browser
// (make login-test). The site is https://shop.example.test with a certificate of the test's, the provider http://127.0.0.1: two sites, as in
// life. All of it is on loopback; the browser resolves example.test to it by itself.
package login
