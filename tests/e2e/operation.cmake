e2e_test(e2e_systemd_units fast test_systemd.py ARGS units)
e2e_test(e2e_systemd fast test_systemd.py ARGS protocol)
e2e_test(e2e_operation fast test_operation.py TIMEOUT 180)
