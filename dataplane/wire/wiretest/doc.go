// Package wiretest is the suite that every engine and every transport passes. It shows exchanges as filters see them, and demands the
// same of all; what an engine cannot show is said in its Engine value, not left out in silence.
//
// Everything it does runs on loopback. After each test the exchanges are counted (Done exactly once for each), and at the end
// goroutines and descriptors must be what they were.
package wiretest
