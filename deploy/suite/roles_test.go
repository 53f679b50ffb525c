package suite

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// Services run as their own roles whatever form the given DATABASE_URL has: as the administrator they
// would pass row-level security by.
func TestServicesNeverRunAsAdministrator(t *testing.T) {
	for _, url := range []string{
		"postgres://admin:secret@db:5432/app",
		"postgres://db:5432/app?user=admin&password=secret",
		"postgres://postgres:postgres@db:5432/app?user=admin",
		"host=db port=5432 user=admin password=secret dbname=app",
		"postgres://admin:secret@db1:5432,db2:5432/app",
	} {
		s := &Suite{DatabaseURL: url, Secrets: Secrets{RolePassword: "rolepassword"}}
		c, err := pgx.ParseConfig(s.roleURL("sametick_api"))
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if c.User != "sametick_api" || c.Password != "rolepassword" || c.Host[0] != 'd' {
			t.Errorf("%s: services log in as %q at %q", url, c.User, c.Host)
		}
	}
}
