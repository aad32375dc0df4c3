e2e_test(e2e_systemd fast test_systemd.py)
e2e_test(e2e_operation fast test_operation.py TIMEOUT 180)
