package dataplane

import (
	"os"
	"slices"
	"testing"
)

func TestEachFilterStandsInTheList(t *testing.T) {
	dirs, err := os.ReadDir("filter")
	if err != nil {
		t.Fatal(err)
	}
	order := FilterOrder()
	for _, d := range dirs {
		if d.IsDir() && d.Name() != "filtertest" && !slices.Contains(order, d.Name()) {
			t.Errorf("filter/%s is not in Filters: no request would ever meet it", d.Name())
		}
	}
	for _, name := range order {
		if _, err := os.Stat("filter/" + name + "/README.md"); err != nil {
			t.Errorf("filter/%s has no page of its own: %v", name, err)
		}
	}
}
