package store

import (
	"context"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
)

const (
	insertProvider = `INSERT INTO sametick.prompt_providers (org_id, id, name, kind, base_url, default_model, key_sealed, key_hint, concurrency)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	updateProvider = `UPDATE sametick.prompt_providers SET name = $3, base_url = $4, default_model = $5, key_sealed = $6, key_hint = $7, concurrency = $8,
  version = version + 1, updated_at = date_trunc('milliseconds', now()), archived_at = CASE WHEN $9 THEN date_trunc('milliseconds', now()) END
  WHERE org_id = $1 AND id = $2`

	serverColumns = `SELECT m.org_id, m.id, m.name, m.transport, m.url, m.command, m.headers_sealed, m.created_at, m.archived_at`
	serverByID    = serverColumns + ` FROM sametick.mcp_servers m WHERE m.org_id = $1 AND m.id = $2`
	serversByID   = serverColumns + ` FROM sametick.mcp_servers m WHERE m.org_id = $1 AND m.id = ANY($2) AND m.archived_at IS NULL`
	insertServer  = `INSERT INTO sametick.mcp_servers (org_id, id, name, transport, url, command, headers_sealed) VALUES ($1, $2, $3, $4, $5, $6, $7)`
	archiveServer = `UPDATE sametick.mcp_servers SET archived_at = date_trunc('milliseconds', now()) WHERE org_id = $1 AND id = $2`
)

// CreateProvider keeps a provider under its id, which is of NewID: its key is sealed for it.
func (s *Store) CreateProvider(ctx context.Context, call hooks.Call, p hooks.Provider) (out hooks.Provider, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertProvider, call.OrgID, p.ID, p.Name, p.Kind, p.BaseURL, p.DefaultModel, p.KeySealed, p.KeyHint, p.Concurrency)
		if err != nil {
			return err
		}
		if out, err = one(ctx, tx, readProvider, errNoProvider, providerByID, call.OrgID, p.ID); err != nil {
			return err
		}
		return record(ctx, tx, call, event.Create, object{typ: hooks.TypeProvider, id: p.ID, name: p.Name, after: providerFields(&out)})
	})
	return out, err
}

// hostOf is what events show of a URL: the rest may be a secret.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

// providerFields are what events show: of a key that there is one.
func providerFields(p *hooks.Provider) map[string]any {
	return map[string]any{"name": p.Name, "kind": p.Kind, "host": hostOf(p.BaseURL), "default_model": p.DefaultModel, "concurrency": p.Concurrency,
		"has_key": p.KeySealed != nil, "archived_at": timeOrNil(p.ArchivedAt)}
}

// UpdateProvider changes a provider: change gets it as it is, locked, and gives it as it shall be. A version that is not nil must
// be the provider's. Errors: reasons PROVIDER_NOT_FOUND, ARCHIVED, VERSION_MISMATCH, and change's.
func (s *Store) UpdateProvider(ctx context.Context, call hooks.Call, id int64, version *int64, change func(hooks.Provider) (hooks.Provider, error)) (hooks.Provider, error) {
	return s.changeProvider(ctx, call, id, version, event.Update, change)
}

// ArchiveProvider ends a provider. Hooks that are bound to it fall back or fail from now on. Errors: reason PROVIDER_NOT_FOUND.
func (s *Store) ArchiveProvider(ctx context.Context, call hooks.Call, id int64) (hooks.Provider, error) {
	return s.changeProvider(ctx, call, id, nil, event.Archive, func(p hooks.Provider) (hooks.Provider, error) { return p, nil })
}

func (s *Store) changeProvider(ctx context.Context, call hooks.Call, id int64, version *int64, operation string, change func(hooks.Provider) (hooks.Provider, error)) (out hooks.Provider, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		before, err := one(ctx, tx, readProvider, errNoProvider, providerByID+forUpdate, call.OrgID, id)
		if err != nil {
			return err
		}
		if err := checkVersion(version, before.Version); err != nil {
			return err
		}
		if before.ArchivedAt != nil {
			if out = before; operation == event.Archive {
				return nil
			}
			return errArchived
		}
		next, err := change(before)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, updateProvider, call.OrgID, id, next.Name, next.BaseURL, next.DefaultModel, next.KeySealed, next.KeyHint, next.Concurrency, operation == event.Archive)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, touchReviewHooks, call.OrgID, int64(0), id); err != nil {
			return err
		}
		if out, err = one(ctx, tx, readProvider, errNoProvider, providerByID, call.OrgID, id); err != nil {
			return err
		}
		return record(ctx, tx, call, operation, object{typ: hooks.TypeProvider, id: id, name: out.Name, before: providerFields(&before), after: providerFields(&out)})
	})
	return out, err
}

// GetProvider gives one. Errors: reason PROVIDER_NOT_FOUND.
func (s *Store) GetProvider(ctx context.Context, orgID, id int64) (p hooks.Provider, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		p, err = one(ctx, tx, readProvider, errNoProvider, providerByID, orgID, id)
		return err
	})
	return p, err
}

// ListProviders gives a page, and how many there are.
func (s *Store) ListProviders(ctx context.Context, orgID int64, p Page) ([]hooks.Provider, int64, error) {
	return list(ctx, s, orgID, p, readProvider, providerColumns, `sametick.prompt_providers p`)
}

func readServer(row pgx.CollectableRow) (m hooks.Server, err error) {
	err = row.Scan(&m.OrgID, &m.ID, &m.Name, &m.Transport, &m.URL, &m.Command, &m.HeadersSealed, &m.CreatedAt, &m.ArchivedAt)
	return m, err
}

func serverFields(m *hooks.Server) map[string]any {
	return map[string]any{"name": m.Name, "transport": m.Transport, "host": hostOf(m.URL), "program": strings.Join(m.Command[:min(len(m.Command), 1)], ""), "has_headers": m.HeadersSealed != nil,
		"archived_at": timeOrNil(m.ArchivedAt)}
}

// CreateServer keeps an MCP server under its id, which is of NewID: its headers are sealed for it.
func (s *Store) CreateServer(ctx context.Context, call hooks.Call, m hooks.Server) (out hooks.Server, err error) {
	command := m.Command
	if command == nil {
		command = []string{}
	}
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertServer, call.OrgID, m.ID, m.Name, m.Transport, m.URL, command, m.HeadersSealed); err != nil {
			return err
		}
		if out, err = one(ctx, tx, readServer, errNoServer, serverByID, call.OrgID, m.ID); err != nil {
			return err
		}
		return record(ctx, tx, call, event.Create, object{typ: hooks.TypeServer, id: m.ID, name: m.Name, after: serverFields(&out)})
	})
	return out, err
}

// ArchiveServer ends an MCP server. Errors: reason MCP_SERVER_NOT_FOUND.
func (s *Store) ArchiveServer(ctx context.Context, call hooks.Call, id int64) (out hooks.Server, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		before, err := one(ctx, tx, readServer, errNoServer, serverByID+forUpdate, call.OrgID, id)
		if out = before; err != nil || before.ArchivedAt != nil {
			return err
		}
		if _, err := tx.Exec(ctx, archiveServer, call.OrgID, id); err != nil {
			return err
		}
		if out, err = one(ctx, tx, readServer, errNoServer, serverByID, call.OrgID, id); err != nil {
			return err
		}
		return record(ctx, tx, call, event.Archive, object{typ: hooks.TypeServer, id: id, name: out.Name, before: serverFields(&before), after: serverFields(&out)})
	})
	return out, err
}

// GetServer gives one. Errors: reason MCP_SERVER_NOT_FOUND.
func (s *Store) GetServer(ctx context.Context, orgID, id int64) (m hooks.Server, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		m, err = one(ctx, tx, readServer, errNoServer, serverByID, orgID, id)
		return err
	})
	return m, err
}

// ListServers gives a page, and how many there are.
func (s *Store) ListServers(ctx context.Context, orgID int64, p Page) ([]hooks.Server, int64, error) {
	return list(ctx, s, orgID, p, readServer, serverColumns, `sametick.mcp_servers m`)
}
