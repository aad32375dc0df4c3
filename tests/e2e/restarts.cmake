# Engine, router and supervisor killed in turn: once each, and 20 times each with the promised times.
e2e_test(e2e_restarts fast test_restarts.py TIMEOUT 180 ARGS 1)
e2e_test(e2e_restarts_full full test_restarts.py TIMEOUT 1500 ARGS 20 strict)
