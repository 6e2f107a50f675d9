// Package contracts x.
package contracts
