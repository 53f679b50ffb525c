package main

import (
	"encoding/json"
	"net/http"
	"time"
)

// question is what matters here of a request for a chat completion
// (https://platform.openai.com/docs/api-reference/chat/create).
type question struct {
	Model    string    `json:"model"`
	Messages []message `json:"messages"`
	Tools    []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
}

type message struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type toolCall struct {
	ID       string   `json:"id"`
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// answer calls the first tool with the last message, or repeats it.
func (q *question) answer() (m message, reason string) {
	last := q.Messages[len(q.Messages)-1]
	if len(q.Tools) == 0 || last.Role == "tool" {
		return message{Role: "assistant", Content: "I was told: " + last.Content}, "stop"
	}
	arguments, err := json.Marshal(map[string]string{"text": last.Content})
	if err != nil { // a text always encodes
		return message{Role: "assistant", Content: err.Error()}, "stop"
	}
	call := toolCall{ID: "call_1", Type: "function", Function: function{q.Tools[0].Function.Name, string(arguments)}}
	return message{Role: "assistant", ToolCalls: []toolCall{call}}, "tool_calls"
}

func complete(w http.ResponseWriter, r *http.Request) {
	var q question
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&q); err != nil || len(q.Messages) == 0 {
		http.Error(w, `{"error": {"message": "messages, each with a content that is a text", "type": "invalid_request_error"}}`, http.StatusBadRequest)
		return
	}
	m, reason := q.answer()
	asked := 0
	for _, one := range q.Messages {
		asked += len(one.Content)
	}
	const perToken = 4 // characters, about
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // whoever asked may have gone
		"id": "chatcmpl-1", "object": "chat.completion", "created": time.Now().Unix(), "model": q.Model,
		"choices": []any{map[string]any{"index": 0, "message": m, "finish_reason": reason}},
		"usage":   map[string]int{"prompt_tokens": asked / perToken, "completion_tokens": len(m.Content) / perToken, "total_tokens": (asked + len(m.Content)) / perToken},
	})
}
