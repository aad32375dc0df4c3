e2e_test(e2e_stall fast test_stall.py TIMEOUT 180)
