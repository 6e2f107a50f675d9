package translate

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/cors"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func corsFilter(f gwv1.HTTPCORSFilter, field string) (snapshot.Filter, *problem) {
	return check(field, cors.Config{
		AllowOrigins:     strs(f.AllowOrigins),
		AllowCredentials: value(f.AllowCredentials, false),
		AllowMethods:     strs(f.AllowMethods),
		AllowHeaders:     strs(f.AllowHeaders),
		ExposeHeaders:    strs(f.ExposeHeaders),
		MaxAge:           int(f.MaxAge),
	})
}
