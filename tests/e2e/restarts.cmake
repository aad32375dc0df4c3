# Engine, router and supervisor killed in turn: once each, and 20 times each with the promised times.
e2e_test(e2e_restarts fast test_restarts.py TIMEOUT 180 ARGS 1)
e2e_test(e2e_restarts_full full test_restarts.py TIMEOUT 1500 ARGS 20 strict)
# Several at a time, at random: kill, end, stop for a while.
e2e_test(e2e_chaos full test_chaos.py TIMEOUT 700 ARGS 300 1)
e2e_test(e2e_chaos_two_engines full test_chaos.py TIMEOUT 700 ARGS 300 2)
