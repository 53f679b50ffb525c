package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider/strict"
)

// Kinds of providers that talk to a model.
const (
	KindOpenAI    = "openai"
	KindAnthropic = "anthropic"
)

// Config is how a provider is reached.
type Config struct {
	// Kind is KindOpenAI or KindAnthropic.
	Kind string
	// BaseURL is where its paths begin, such as http://127.0.0.1:11434/v1; empty means the vendor's own.
	BaseURL string
	// Key may be empty for servers that want none.
	Key string
	// HTTP does the calls, with the caller's transport and its guard of addresses. Required.
	HTTP *http.Client
	// MaxBytes bounds an answer; 0 means 4 MiB.
	MaxBytes int64
}

// Model is a prompting.Model that knows which schemas it can enforce.
type Model interface {
	prompting.Model
	// Enforces tells whether the provider holds the model to this schema; a nil one needs no enforcing.
	Enforces(schema json.RawMessage) bool
}

const (
	defaultMaxBytes = 4 << 20
	// callTimeout is for the SDKs alone, one of which refuses long answers without it: the context ends calls.
	callTimeout = time.Hour
)

// ErrConfig is why there can be no such provider.
var ErrConfig = errors.New("provider: invalid configuration")

// New makes a provider. It reads no environment, and calls nobody. Errors are ErrConfig.
func New(c Config) (Model, error) {
	if c.HTTP == nil {
		return nil, fmt.Errorf("%w: no HTTP client", ErrConfig)
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = defaultMaxBytes
	}
	vendor := map[string]string{KindOpenAI: "https://api.openai.com/v1", KindAnthropic: "https://api.anthropic.com"}[c.Kind]
	if vendor == "" {
		return nil, fmt.Errorf("%w: unknown kind", ErrConfig)
	}
	if c.BaseURL == "" {
		c.BaseURL = vendor
	}
	base, err := url.Parse(c.BaseURL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("%w: the base URL is not like https://host/path", ErrConfig)
	}
	c.BaseURL = strings.TrimSuffix(c.BaseURL, "/") + "/"
	if c.Kind == KindAnthropic {
		return newAnthropic(c), nil
	}
	return newOpenAI(c, base.Hostname() == "api.openai.com"), nil
}

func (c Config) exchange() *exchange { return &exchange{client: c.HTTP, max: c.MaxBytes} }

// answer checks what a model said in full. The usage is known, so each error carries it.
func answer(r prompting.Request, out prompting.Response) (prompting.Response, error) {
	invalid := func(why string) (prompting.Response, error) {
		return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseInvalid, Text: why, Usage: out.Usage}
	}
	switch {
	case len(out.Calls) > 0 && len(r.Tools) == 0:
		return invalid("the model asks for tools that it was not given")
	case len(out.Calls) > 0:
		return out, nil
	case strings.TrimSpace(out.Text) == "":
		return invalid("the answer is empty")
	case r.Schema == nil:
		return out, nil
	}
	// Also false for a doubled name, of which readers take different ones, and for invalid UTF-8.
	value := jsontext.Value(strings.TrimSpace(out.Text))
	if !value.IsValid() {
		return invalid("the answer is not valid JSON")
	}
	out.JSON = strict.Restore(r.Schema, json.RawMessage(value))
	return out, nil
}

// counted gives the usage that a server tells, or, from a compatible one that tells none, an estimate from above: what
// is not counted would cost no budget.
func counted(told prompting.Usage, r prompting.Request, said int) prompting.Usage {
	if told.Input <= 0 && told.Cached <= 0 || told.Output < 0 || told.Input < 0 || told.Cached < 0 {
		return prompting.Usage{Input: r.InputBound(), Output: int64(said) + 1}
	}
	return told
}

func limit(r prompting.Request) int64 {
	if r.MaxTokens > 0 {
		return int64(r.MaxTokens)
	}
	return prompting.DefaultMaxTokens
}

// arguments keeps what a model wrote, which need not be JSON: as a JSON string it then fails every tool's schema.
func arguments(written string) json.RawMessage {
	switch raw := jsontext.Value(strings.TrimSpace(written)); {
	case len(raw) == 0:
		return json.RawMessage(`{}`)
	case raw.IsValid():
		return json.RawMessage(raw)
	default:
		quoted, _ := jsontext.AppendQuote(nil, strings.ToValidUTF8(written, "�"))
		return quoted
	}
}
