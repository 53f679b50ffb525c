// Command protoc-gen-openapi writes the OpenAPI document of the REST routes, from the .proto files with their
// comments and proto/http.yaml, by the rules of internal/rest's JSON. `make generate` runs it.
package main

import (
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	protogen.Options{}.Run(func(p *protogen.Plugin) error {
		p.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		text, err := document(p, "proto/http.yaml")
		if err != nil {
			return err
		}
		_, err = p.NewGeneratedFile("openapi.json", "").Write(text)
		return err
	})
}
