package httpsend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const maxCustom, maxCustomBytes = 20, 8 << 10

// CheckHeaders judges the headers that an endpoint adds: at most 20, 8 KiB in all, and none that is ours or the
// connection's. An error names the header, never its value.
func CheckHeaders(h map[string]string) error {
	if len(h) > maxCustom {
		return fmt.Errorf("more than %d headers", maxCustom)
	}
	bytes := 0
	for name, value := range h {
		bytes += len(name) + len(value)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("header %q: no name of a header", name)
		case !httpguts.ValidHeaderFieldValue(value):
			return fmt.Errorf("header %q: a control character in its value", name)
		case reserved(name):
			return fmt.Errorf("header %q is not yours to set", name)
		}
	}
	if bytes > maxCustomBytes {
		return fmt.Errorf("more than %d bytes of headers", maxCustomBytes)
	}
	return nil
}

// reserved tells headers that we set, and those of the connection (RFC 9110 section 7.6.1).
func reserved(name string) bool {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "webhook-") || strings.HasPrefix(name, "proxy-") || strings.HasPrefix(name, ":") {
		return true
	}
	switch name {
	case "host", "content-length", "content-type", "content-encoding", "user-agent", "accept-encoding", "connection", "keep-alive", "te", "trailer",
		"transfer-encoding", "upgrade", "expect", "http2-settings", "traceparent", "tracestate":
		return true
	}
	return false
}

// appendShown appends a request's header for its history, as appendHeader does, but without the values of those that
// authenticate.
func appendShown(b []byte, name string, values ...string) []byte {
	if secret(name) {
		values = []string{"[hidden]"}
	}
	return appendHeader(b, name, values...)
}

// appendHeader appends a member of the JSON object that begins in b.
func appendHeader(b []byte, name string, values ...string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(appendText(b, name), ':', '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, v)
	}
	return append(b, ']')
}

// appendText appends a string of JSON. What nearly all headers are made of needs no escapes.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil { // strings always marshal
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// asJSON gives an answer's headers.
func asJSON(h http.Header) string {
	b := make([]byte, 0, 512)
	b = append(b, '{')
	for name, values := range h {
		b = appendHeader(b, name, values...)
	}
	return string(append(b, '}'))
}

func secret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"authorization", "cookie", "key", "token", "secret", "password"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func size(h http.Header) int {
	n := 0
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 4 // as on the wire
		}
	}
	return n
}
