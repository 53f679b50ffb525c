// Package tenancy has no code but tests: one organisation acts on another's data by everything that the
// service offers, and none of it may show. What there is to act by is found by reflection (tables, policies
// and functions in pg_catalog, methods from gRPC's reflection, routes from proto/http.yaml), so what is new
// is tested too, or the test fails and says what it has to be told, in known_test.go.
//
// What walks all of that serves two more: TestDoors holds REST and gRPC to the same answers, TestHead HEAD to GET's.
package tenancy
