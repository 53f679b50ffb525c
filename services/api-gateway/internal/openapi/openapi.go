// Package openapi serves the description of the REST routes, which is generated from proto/ (see
// protoc-gen-openapi), and a page that shows it and tries calls.
package openapi

import (
	"bytes"
	_ "embed" // the document
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

//go:embed openapi.json
var document []byte

// The routes.
const (
	Path     = "/api/openapi.json"
	DocsPath = "/api/docs"
)

// policy lets the page load from here alone; its own script is inline.
const policy = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"

// New makes the handler of both routes. scopes are what each gRPC method needs, empty for none: the document says so.
func New(scopes map[string]string) (http.Handler, error) {
	text, err := Document(scopes)
	if err != nil {
		return nil, err
	}
	page := v5emb.NewHandlerWithConfig(swgui.Config{Title: "Sametick API", SwaggerJSON: Path, BasePath: DocsPath + "/",
		SettingsUI: map[string]string{"persistAuthorization": "true", "docExpansion": `"list"`, "tryItOutEnabled": "true"}})
	started := time.Now()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == Path:
			w.Header().Set("Content-Type", "application/json")
			http.ServeContent(w, r, "", started, bytes.NewReader(text))
		case r.URL.Path == DocsPath:
			http.Redirect(w, r, DocsPath+"/", http.StatusMovedPermanently)
		default:
			w.Header().Set("Content-Security-Policy", policy)
			page.ServeHTTP(w, r)
		}
	}), nil
}

// withoutKey takes away the Idempotency-Key, which needs to know who calls.
func withoutKey(operation map[string]any) {
	list, _ := operation["parameters"].([]any)
	operation["parameters"] = slices.DeleteFunc(list, func(p any) bool {
		parameter, _ := p.(map[string]any)
		return parameter["name"] == "Idempotency-Key"
	})
}

// Serves tells whether a path is one of this package's.
func Serves(path string) bool {
	return path == Path || path == DocsPath || strings.HasPrefix(path, DocsPath+"/")
}

// Document gives the document with what each operation needs.
func Document(scopes map[string]string) ([]byte, error) {
	var doc map[string]any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	paths, _ := doc["paths"].(map[string]any)
	for _, item := range paths {
		operations, _ := item.(map[string]any)
		for _, o := range operations {
			operation, _ := o.(map[string]any)
			method, _ := operation["x-grpc-method"].(string)
			scope, known := scopes[method]
			switch {
			case known && scope == "":
				operation["security"] = []any{}
				withoutKey(operation)
			case known:
				text, _ := operation["description"].(string)
				operation["description"] = strings.TrimSpace(text + "\n\nNeeds the scope `" + scope + "`.")
			}
		}
	}
	return json.Marshal(doc)
}
