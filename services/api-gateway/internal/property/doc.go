// Package property has no code but tests: it sends what the OpenAPI document allows, and what it forbids, to
// a running gateway, and holds every answer to the document. It knows no route and no field but from there.
package property
