e2e_test(e2e_systemd fast test_systemd.py)
