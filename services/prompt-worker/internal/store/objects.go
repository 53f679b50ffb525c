package store

import (
	"context"
	"encoding/json"
	"reflect"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
)

// Errors of what organisations set up. What is another organisation's is not found either.
var (
	errNoHook     = errs.New(errs.NotFound, "HOOK_NOT_FOUND", "there is no such hook")
	errNoTemplate = errs.New(errs.NotFound, "TEMPLATE_NOT_FOUND", "there is no such template")
	errNoProvider = errs.New(errs.NotFound, "PROVIDER_NOT_FOUND", "there is no such provider")
	errNoServer   = errs.New(errs.NotFound, "MCP_SERVER_NOT_FOUND", "there is no such MCP server")
	errArchived   = errs.New(errs.FailedPrecondition, "ARCHIVED", "it is archived")
)

// NewID draws the id of a template, provider, MCP server or hook: what is sealed for it is bound to its id.
func (s *Store) NewID(ctx context.Context) (id int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT nextval('sametick.prompt_ids')`).Scan(&id)
	return id, err
}

// checkVersion compares with what the caller has read; nil compares nothing.
func checkVersion(version *int64, now int64) error {
	if version == nil || *version == now {
		return nil
	}
	return errs.New(errs.Aborted, "VERSION_MISMATCH", "it has changed since that version").WithMeta("version", strconv.FormatInt(now, 10))
}

// object is what events tell of a change: before and after are maps of what may be shown, nil for what is not.
type object struct {
	typ           string
	id            int64
	name          string
	before, after map[string]any
	// extra joins the payload; nil for nothing.
	extra map[string]any
}

// record records the pre_ and post_ event of an operation.
func record(ctx context.Context, tx pgx.Tx, call hooks.Call, operation string, o object) error {
	changes, err := difference(o.before, o.after)
	if err != nil {
		return err
	}
	var extra json.RawMessage
	if o.extra != nil {
		if extra, err = json.Marshal(o.extra); err != nil {
			return err
		}
	}
	list := make([]outbox.Event, 2)
	for i, action := range []string{event.Pre(operation), event.Post(operation)} {
		list[i] = outbox.Event{OrgID: call.OrgID, AggregateType: o.typ, AggregateID: o.id, Action: action, RecordName: o.name, Changes: changes, Extra: extra}
	}
	_, err = outbox.Append(ctx, tx, call.Context, list...)
	return err
}

// difference maps each field that differs to what it was and what it is.
func difference(before, after map[string]any) (json.RawMessage, error) {
	type sides struct {
		Before any `json:"before"`
		After  any `json:"after"`
	}
	out := map[string]sides{}
	for field, now := range after {
		if !reflect.DeepEqual(before[field], now) {
			out[field] = sides{before[field], now}
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return json.Marshal(out)
}

// fields are a struct's as its JSON has them.
func fields(v any) (map[string]any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	return out, json.Unmarshal(text, &out)
}

// Page asks for a part of a list, newest first.
type Page struct {
	// Before is the id that the page before ended with; 0 for the first.
	Before int64
	Limit  int
	// Archived ones are wanted too.
	Archived bool
}

// list gives a page and how many there are in all.
func list[T any](ctx context.Context, s *Store, orgID int64, p Page, read pgx.RowToFunc[T], columns, from string) (out []T, total int64, err error) {
	where := ` FROM ` + from + ` WHERE org_id = $1 AND ($2 OR archived_at IS NULL)`
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT count(*)`+where, orgID, p.Archived).Scan(&total); err != nil {
			return err
		}
		out, err = many(ctx, tx, read, columns+where+` AND ($3 = 0 OR id < $3) ORDER BY id DESC LIMIT $4`, orgID, p.Archived, p.Before, p.Limit)
		return err
	})
	return out, total, err
}
