package managing

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/mcp"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// ProviderSettings are what a provider's owner sets, beside its kind.
type ProviderSettings struct {
	Name, BaseURL, DefaultModel string
	// Key is empty for servers that want none.
	Key         string
	Concurrency int
}

func (f *faults) provider(p *ProviderSettings, named func(string) bool, check func(string) (string, error)) {
	if named("name") {
		f.text("name", p.Name, 1, maxName)
	}
	if named("default_model") {
		f.text("default_model", p.DefaultModel, 0, maxModel)
	}
	if named("base_url") && p.BaseURL != "" {
		called, err := check(p.BaseURL)
		if err != nil {
			f.add("base_url", "INVALID_URL", "%s", err)
		}
		p.BaseURL = called
	}
	if named("key") && (len(p.Key) > maxKey || strings.ContainsFunc(p.Key, func(r rune) bool { return r <= ' ' || r > '~' })) {
		f.add("key", "INVALID_VALUE", "at most %d printable ASCII characters without spaces", maxKey)
	}
	if named("concurrency") {
		f.between("concurrency", p.Concurrency, 0, maxConcurrency)
	}
}

// hintOf shows the end of a key that is long enough to lose it.
func hintOf(key string) string {
	const shown = 4
	if len(key) < 4*shown {
		return ""
	}
	return key[len(key)-shown:]
}

func (s *Service) sealKey(orgID, id int64, key string) []byte {
	if key == "" {
		return nil
	}
	return s.Ring.Seal(keyring.Owner{OrgID: orgID, ID: id, Purpose: hooks.PurposeProviderKey}, []byte(key))
}

func everyField(string) bool { return true }

// CreateProvider makes a provider. Its key is sealed and never shown.
func (s *Service) CreateProvider(ctx context.Context, call hooks.Call, kind string, set ProviderSettings) (p hooks.Provider, err error) {
	f := &faults{}
	if kind != provider.KindOpenAI && kind != provider.KindAnthropic {
		f.add("kind", "NOT_IN_ENUM", "one of: %s, %s; a hook of rules alone needs no provider", provider.KindOpenAI, provider.KindAnthropic)
	}
	f.provider(&set, everyField, s.CheckURL)
	if err := f.result(); err != nil {
		return p, err
	}
	id, err := s.Store.NewID(ctx)
	if err != nil {
		return p, err
	}
	return s.Store.CreateProvider(ctx, call, hooks.Provider{ID: id, Name: set.Name, Kind: kind, BaseURL: set.BaseURL, DefaultModel: set.DefaultModel,
		KeySealed: s.sealKey(call.OrgID, id, set.Key), KeyHint: hintOf(set.Key), Concurrency: set.Concurrency})
}

// Provider gives one, also an archived one.
func (s *Service) Provider(ctx context.Context, orgID, id int64) (p hooks.Provider, err error) {
	if err := one(id); err != nil {
		return p, err
	}
	return s.Store.GetProvider(ctx, orgID, id)
}

// allOf lists what has no pages on the wire.
const allOf = 1000

// Providers gives the newest 1,000, and how many there are.
func (s *Service) Providers(ctx context.Context, orgID int64, archived bool) ([]hooks.Provider, int64, error) {
	return s.Store.ListProviders(ctx, orgID, store.Page{Limit: allOf, Archived: archived})
}

// UpdateProvider changes the fields that the mask names. A key is never sent to another origin than it was set for.
func (s *Service) UpdateProvider(ctx context.Context, call hooks.Call, id int64, version *int64, mask []string, set ProviderSettings) (p hooks.Provider, err error) {
	f := &faults{}
	f.id("id", id)
	f.version(version)
	f.mask(mask, "name", "base_url", "default_model", "key", "concurrency")
	named := func(field string) bool { return slices.Contains(mask, field) }
	f.provider(&set, named, s.CheckURL)
	if err := f.result(); err != nil {
		return p, err
	}
	return s.Store.UpdateProvider(ctx, call, id, version, func(p hooks.Provider) (hooks.Provider, error) {
		if named("base_url") && p.KeySealed != nil && !named("key") && originOf(p.BaseURL) != originOf(set.BaseURL) {
			f := &faults{}
			f.add("key", "REQUIRED", "the key anew, or an empty one: the old one is not sent to another origin")
			return p, f.result()
		}
		for field, change := range map[string]func(){
			"name": func() { p.Name = set.Name }, "base_url": func() { p.BaseURL = set.BaseURL },
			"default_model": func() { p.DefaultModel = set.DefaultModel }, "concurrency": func() { p.Concurrency = set.Concurrency },
			"key": func() { p.KeySealed, p.KeyHint = s.sealKey(call.OrgID, id, set.Key), hintOf(set.Key) },
		} {
			if named(field) {
				change()
			}
		}
		return p, nil
	})
}

func (f *faults) mask(mask []string, known ...string) {
	for _, field := range mask {
		if !slices.Contains(known, field) {
			f.add("update_mask", "UNKNOWN_FIELD", "%q cannot be changed", prompting.Clean(field, 64))
		}
	}
}

func originOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Scheme + "://" + u.Host
}

// ArchiveProvider ends one: hooks that are bound to it fall back, or fail as their policies say.
func (s *Service) ArchiveProvider(ctx context.Context, call hooks.Call, id int64) (p hooks.Provider, err error) {
	if err := one(id); err != nil {
		return p, err
	}
	return s.Store.ArchiveProvider(ctx, call, id)
}

// ServerSettings are what an MCP server's owner sets.
type ServerSettings struct {
	Name, Transport, URL string
	Command              []string
	Headers              map[string]string
}

func (s *Service) checkServer(f *faults, set *ServerSettings) {
	f.text("name", set.Name, 1, maxName)
	switch set.Transport {
	case mcp.TransportHTTP:
		called, err := s.CheckURL(set.URL)
		if err != nil {
			f.add("url", "INVALID_URL", "%s", err)
		}
		set.URL = called
		if len(set.Command) > 0 {
			f.add("command", "NOT_SUPPORTED", "no command with http")
		}
	case mcp.TransportStdio:
		if err := s.CheckCommand(set.Command); err != nil {
			f.add("command", "NOT_ALLOWED", "a command that the operator allows, whole")
		}
		if set.URL != "" || len(set.Headers) > 0 {
			f.add("url", "NOT_SUPPORTED", "neither url nor headers with stdio")
		}
	default:
		f.add("transport", "NOT_IN_ENUM", "one of: %s, %s", mcp.TransportHTTP, mcp.TransportStdio)
	}
	f.headers(set.Headers)
}

const maxHeaders, maxHeaderName, maxHeaderValue = 20, 100, 2000

// headers refuses those that are no headers (RFC 9110, 5.5 and 5.6.2), and the connection's own.
func (f *faults) headers(headers map[string]string) {
	if len(headers) > maxHeaders {
		f.add("headers", "TOO_MANY", "at most %d", maxHeaders)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value := headers[name]
		field := "headers." + prompting.Clean(name, 64)
		switch {
		case name == "" || len(name) > maxHeaderName || strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
			f.add(field, "INVALID_HEADER", "a name of 1 to %d letters, digits and -", maxHeaderName)
		case slices.Contains([]string{"host", "content-length", "connection", "transfer-encoding", "upgrade", "te", "trailer"}, strings.ToLower(name)):
			f.add(field, "RESERVED", "a header that is not the connection's")
		case len(value) > maxHeaderValue || strings.TrimSpace(value) != value || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			f.add(field, "INVALID_VALUE", "at most %d printable ASCII characters", maxHeaderValue)
		}
	}
}

// CreateServer registers an MCP server. Its headers are sealed and never shown.
func (s *Service) CreateServer(ctx context.Context, call hooks.Call, set ServerSettings) (m hooks.Server, err error) {
	f := &faults{}
	s.checkServer(f, &set)
	if err := f.result(); err != nil {
		return m, err
	}
	id, err := s.Store.NewID(ctx)
	if err != nil {
		return m, err
	}
	m = hooks.Server{ID: id, Name: set.Name, Transport: set.Transport, URL: set.URL, Command: set.Command}
	if len(set.Headers) > 0 {
		text, err := json.Marshal(set.Headers)
		if err != nil {
			return m, fmt.Errorf("seal headers: %w", err)
		}
		m.HeadersSealed = s.Ring.Seal(keyring.Owner{OrgID: call.OrgID, ID: id, Purpose: hooks.PurposeServerHeaders}, text)
	}
	return s.Store.CreateServer(ctx, call, m)
}

// Server gives one, also an archived one.
func (s *Service) Server(ctx context.Context, orgID, id int64) (m hooks.Server, err error) {
	if err := one(id); err != nil {
		return m, err
	}
	return s.Store.GetServer(ctx, orgID, id)
}

// Servers gives the newest 1,000, and how many there are.
func (s *Service) Servers(ctx context.Context, orgID int64, archived bool) ([]hooks.Server, int64, error) {
	return s.Store.ListServers(ctx, orgID, store.Page{Limit: allOf, Archived: archived})
}

// ArchiveServer ends one: runs of hooks that use it fail from then on.
func (s *Service) ArchiveServer(ctx context.Context, call hooks.Call, id int64) (m hooks.Server, err error) {
	if err := one(id); err != nil {
		return m, err
	}
	return s.Store.ArchiveServer(ctx, call, id)
}

// Offered asks an MCP server which tools it has.
func (s *Service) Offered(ctx context.Context, orgID, id int64) ([]prompting.Tool, error) {
	m, err := s.Server(ctx, orgID, id)
	if err != nil {
		return nil, err
	}
	if m.ArchivedAt != nil {
		return nil, errs.New(errs.FailedPrecondition, "ARCHIVED", "it is archived")
	}
	list, err := s.Tools.Offered(ctx, &m)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "MCP_SERVER_UNAVAILABLE", "the MCP server does not say: "+prompting.Clean(err.Error(), prompting.MaxReason)).WithCause(err)
	}
	return list, nil
}
