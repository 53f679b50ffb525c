package tenancy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// mimic writes rows of B's own that bear A's ids, changes and deletes them, as each role that may: a trigger
// or a function with its owner's rights that looks by an id alone would take A's rows for them.
func (f *functions) mimic() ([]string, int, error) {
	f.found = nil
	if err := f.tx.QueryRow(f.ctx, f.digest).Scan(&f.before); err != nil {
		return nil, 0, err
	}
	written := 0
	for _, t := range f.tables {
		if !t.org || isPartition(t.name) {
			continue
		}
		models, err := query[string](f.ctx, f.tx, fmt.Sprintf(`SELECT (to_jsonb(t) || jsonb_build_object('org_id', $2::bigint))::text
			FROM %s t WHERE org_id = $1 LIMIT 60`, t.sql()), f.a, f.b)
		if err != nil {
			return nil, 0, err
		}
		key, err := query[string](f.ctx, f.tx, `SELECT coalesce(string_agg(quote_ident(a.attname), ', '), '') FROM pg_index i
			JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indrelid = $1::regclass AND i.indisprimary`, "sametick."+t.name)
		if err != nil {
			return nil, 0, err
		}
		for _, role := range f.roles {
			for _, model := range models {
				n, err := f.mimicRow(role, t, key[0], model)
				if err != nil {
					return nil, 0, fmt.Errorf("%s on %s: %w", role, t.name, err)
				}
				written += n
			}
		}
	}
	return f.found, written, nil
}

// mimicRow writes one such row and gives 1, or 0 when it may not be written.
func (f *functions) mimicRow(role string, t table, key, model string) (n int, err error) {
	allowed := t.granted(f.rows, role)
	if len(allowed.columns) == 0 {
		return 0, nil
	}
	err = f.as(role, f.b, func(tx pgx.Tx) error {
		columns := allowed.list()
		if !try(f, tx, `INSERT INTO `+t.sql()+` (`+columns+`) SELECT `+columns+` FROM jsonb_populate_record(NULL::`+t.sql()+`, $1::jsonb)`, model) {
			return nil
		}
		n = 1
		// Of the row alone, since others of B may stand in the way; of all where the role may not read the key.
		only := fmt.Sprintf(` WHERE (%[1]s) = (SELECT %[1]s FROM jsonb_populate_record(NULL::%[2]s, $1::jsonb))`, key, t.sql())
		for _, c := range t.columns {
			value := map[string]string{"timestamp with time zone": "now()", "boolean": "true", "text": "'x'"}[c.kind]
			if value != "" && c.name != "type" {
				set := `UPDATE ` + t.sql() + ` SET ` + pgx.Identifier{c.name}.Sanitize() + ` = ` + value
				if !try(f, tx, set+only, model) {
					try(f, tx, set)
				}
			}
		}
		try(f, tx, `DELETE FROM `+t.sql()+only, model)
		if _, err := tx.Exec(f.ctx, "RESET ROLE"); err != nil {
			return err
		}
		var after int64
		if err := tx.QueryRow(f.ctx, f.digest).Scan(&after); err != nil {
			return err
		}
		if after != f.before {
			f.say("%s of %d, with a row of its own that bears ids of %d, changes %d's rows: %s %s", role, f.b, f.a, f.a, t.name, model)
		}
		return nil
	})
	return n, err
}

// try runs a statement that may fail.
func try(f *functions, tx pgx.Tx, sql string, args ...any) bool {
	inner, err := tx.Begin(f.ctx)
	if err != nil {
		return false
	}
	if _, err := inner.Exec(f.ctx, sql, args...); err != nil {
		_ = inner.Rollback(f.ctx)
		return false
	}
	return inner.Commit(f.ctx) == nil
}

// TestMimicry: rows of B with A's ids leave A's alone. The control is a trigger that looks by the id alone.
func TestMimicry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	tx, err := w.g.Admin.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	f, err := newFunctions(ctx, tx, w)
	require.NoError(t, err)
	found, written, err := f.mimic()
	require.NoError(t, err)
	require.Empty(t, found, strings.Join(found, "\n"))
	require.NotZero(t, written, "no row could be written")
	t.Logf("%d rows", written)

	_, err = tx.Exec(ctx, `CREATE FUNCTION sametick.careless() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
		$$BEGIN UPDATE sametick.refresh_tokens SET revoked_at = now() WHERE user_id = NEW.id; RETURN NULL; END$$;
		ALTER FUNCTION sametick.careless() OWNER TO sametick_owner;
		CREATE TRIGGER careless AFTER UPDATE OF archived_at ON sametick.records FOR EACH ROW EXECUTE FUNCTION sametick.careless()`)
	require.NoError(t, err)
	f, err = newFunctions(ctx, tx, w)
	require.NoError(t, err)
	found, _, err = f.mimic()
	require.NoError(t, err)
	require.NotEmpty(t, found, "nothing notices")
}
