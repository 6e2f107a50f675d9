package infra

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestNamesAreOnesThatTheAPIServerTakes(t *testing.T) {
	long := strings.Repeat("abcdefghi.", 25) + "abc" // 253 characters
	for _, gateway := range []string{"gw", "a.b", "1st", "9", long, strings.Repeat("a", 53), strings.Repeat("a", 54), strings.Repeat("a-", 26) + ".b", strings.Repeat("a.", 100) + "b"} {
		for _, namespace := range []string{"web", "1st", strings.Repeat("n", 63)} {
			name := serviceName(snapshot.Name{Namespace: namespace, Name: gateway})
			if bad := validation.IsDNS1035Label(name); bad != nil {
				t.Errorf("Service of %s/%s: %s: %v", namespace, gateway, name, bad)
			}
		}
		if bad := validation.IsDNS1035Label(aliasName(gateway)); bad != nil {
			t.Errorf("alias of %s: %s: %v", gateway, aliasName(gateway), bad)
		}
		if bad := validation.IsValidLabelValue(labelValue(gateway)); bad != nil {
			t.Errorf("label of %s: %s: %v", gateway, labelValue(gateway), bad)
		}
	}
}

func TestNamesThatAreAlikeDiffer(t *testing.T) {
	long := strings.Repeat("a", 60)
	for _, pair := range [][2]string{
		{serviceName(snapshot.Name{Namespace: "a-b", Name: "c"}), serviceName(snapshot.Name{Namespace: "a", Name: "b-c"})},
		{serviceName(snapshot.Name{Namespace: "a", Name: "b.c"}), serviceName(snapshot.Name{Namespace: "a", Name: "b-c"})},
		{serviceName(snapshot.Name{Namespace: "a", Name: long + "x"}), serviceName(snapshot.Name{Namespace: "a", Name: long + "y"})},
		{aliasName("a.b"), aliasName("a-b")},
		{aliasName("1"), aliasName("g1")},
		{aliasName(long + "x"), aliasName(long + "y")},
		{labelValue(strings.Repeat("a", 64)), labelValue(strings.Repeat("a", 65))},
	} {
		if pair[0] == pair[1] {
			t.Errorf("two are called %s", pair[0])
		}
	}
}

func TestAShortNameIsReadable(t *testing.T) {
	if got, want := aliasName("shop"), "shop-gatehouse"; got != want {
		t.Errorf("alias %s, want %s", got, want)
	}
	if got := serviceName(snapshot.Name{Namespace: "web", Name: "shop"}); !strings.HasPrefix(got, "web-shop-") || len(got) != len("web-shop-")+hashed {
		t.Errorf("Service %s", got)
	}
	if got := labelValue("shop.v1"); got != "shop.v1" {
		t.Errorf("label %s", got)
	}
}
