package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const textSchema = `{"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}, "additionalProperties": false}`

// tools is an MCP server that counts words.
func tools() http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "standin", Version: "1"}, nil)
	s.AddTool(&mcp.Tool{Name: "count_words", Description: "Counts the words of a text.", InputSchema: json.RawMessage(textSchema)},
		func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			var in struct {
				Text string `json:"text"`
			}
			if err := json.Unmarshal(r.Params.Arguments, &in); err != nil {
				return nil, err
			}
			return &mcp.CallToolResult{Content: []mcp.Content{}, StructuredContent: map[string]int{"words": len(strings.Fields(in.Text))}}, nil
		})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, nil)
}
