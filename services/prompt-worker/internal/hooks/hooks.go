// Package hooks has what an organisation sets up for prompts: hooks, templates, providers and MCP servers as they are
// stored, which hooks an event triggers and which it must not. It decides and does not act: storing lives in store,
// running in runs, the text of prompts in prompting.
package hooks

import (
	"encoding/json"
	"time"

	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Aggregate types of what this service owns. No review hook sees them: a bad hook can always be removed.
const (
	TypeTemplate = "prompt_template"
	TypeHook     = "prompt_hook"
	TypeProvider = "prompt_provider"
	TypeServer   = "mcp_server"
	TypeRun      = "prompt_run"
	TypeBacktest = "prompt_backtest"
)

// Modes of hooks.
const (
	ModeReview = "review"
	ModeAsync  = "async"
)

// Words of Settings.
const (
	FailOpen   = "fail_open"
	FailClosed = "fail_closed"
	Shadow     = "shadow"
	Warn       = "warn"
	Enforce    = "enforce"
)

// Settings are what a hook's owner sets; the JSON is how they are stored.
type Settings struct {
	Name string `json:"name"`
	// Mode is ModeReview or ModeAsync.
	Mode       string   `json:"mode"`
	EventTypes []string `json:"event_types"`
	// Condition is CEL; empty means true.
	Condition string           `json:"condition"`
	Rules     []prompting.Rule `json:"rules"`
	// TemplateID is 0 for a hook of rules alone.
	TemplateID int64 `json:"template_id"`
	// TemplateVersion or TemplateLabel, one of both.
	TemplateVersion int    `json:"template_version"`
	TemplateLabel   string `json:"template_label"`
	// CandidateVersion is tried on CandidatePercentage of the entities.
	CandidateVersion    int   `json:"candidate_version"`
	CandidatePercentage int   `json:"candidate_percentage"`
	ProviderID          int64 `json:"provider_id"`
	// FallbackProviderIDs are asked in order when the one before cannot answer.
	FallbackProviderIDs []int64 `json:"fallback_provider_ids"`
	// Model is the provider's default when empty.
	Model      string          `json:"model"`
	Parameters json.RawMessage `json:"parameters"`
	// OutputSchema is the JSON Schema of an async hook's output; null for text.
	OutputSchema json.RawMessage `json:"output_schema"`
	Tools        []ToolGrant     `json:"tools"`
	// TimeoutMS is in milliseconds; 0 means the default of the mode.
	TimeoutMS     int              `json:"timeout_ms"`
	FailurePolicy string           `json:"failure_policy"`
	Enforcement   string           `json:"enforcement"`
	Budget        prompting.Limits `json:"budget"`
	Enabled       bool             `json:"enabled"`
}

// ToolGrant lets a hook use some tools of an MCP server.
type ToolGrant struct {
	ServerID int64    `json:"mcp_server_id"`
	Tools    []string `json:"tools"`
}

// Hook binds a template or rules to events.
type Hook struct {
	OrgID, ID int64
	Settings
	// FromPosition is the position of its post_create event; nil until the scheduler has passed it.
	FromPosition *int64
	// Version is 1 at creation and one more with each change.
	Version              int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// InForce tells whether it does anything.
func (h *Hook) InForce() bool { return h.Enabled && h.ArchivedAt == nil }

// Default timeouts of a hook's calls, and the longest.
const (
	ReviewTimeout    = 2 * time.Second
	MaxReviewTimeout = 10 * time.Second
	AsyncTimeout     = 60 * time.Second
	MaxAsyncTimeout  = 10 * time.Minute
)

// Timeout is how long one attempt may take.
func (h *Hook) Timeout() time.Duration {
	most, normal := MaxAsyncTimeout, AsyncTimeout
	if h.Mode == ModeReview {
		most, normal = MaxReviewTimeout, ReviewTimeout
	}
	if h.TimeoutMS <= 0 {
		return normal
	}
	return min(time.Duration(h.TimeoutMS)*time.Millisecond, most)
}

// Providers are the ids of those that may be asked, in order.
func (h *Hook) Providers() []int64 {
	if h.ProviderID == 0 {
		return nil
	}
	return append([]int64{h.ProviderID}, h.FallbackProviderIDs...)
}

// Template is a name for versions.
type Template struct {
	OrgID, ID         int64
	Name, Description string
	prompting.Labels
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
	// Forced is how a change in hand got by; it is not kept but in its event.
	Forced *Forced
}

// Forced is a label that was moved by force, in spite of these hooks; the JSON is how its event shows it.
type Forced struct {
	Label                string  `json:"label"`
	HooksWithoutBacktest []int64 `json:"hooks_without_backtest"`
}

// Version is one of a template, which never changes.
type Version struct {
	TemplateID int64
	Number     int
	prompting.Version
	Note      string
	CreatedAt time.Time
}

// Provider is where models are asked. Its key is sealed (pkg/keyring) and never shown.
type Provider struct {
	OrgID, ID                         int64
	Name, Kind, BaseURL, DefaultModel string
	KeyHint                           string
	KeySealed                         []byte
	// Concurrency bounds the calls at once; 0 means the installation's default.
	Concurrency          int
	Version              int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// Server is an MCP server. Its headers are sealed (pkg/keyring) and never shown.
type Server struct {
	OrgID, ID            int64
	Name, Transport, URL string
	Command              []string
	HeadersSealed        []byte
	CreatedAt            time.Time
	ArchivedAt           *time.Time
}

// Purposes of what is sealed, see keyring.Owner.
const (
	PurposeProviderKey   = "prompt_provider.key"
	PurposeServerHeaders = "mcp_server.headers"
)

// Call is for whom and from where something is changed.
type Call struct {
	OrgID int64
	outbox.Context
}
