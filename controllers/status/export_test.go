package status

// Patch is for tests.
var Patch = patch
