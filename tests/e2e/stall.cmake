e2e_test(e2e_stall fast test_stall.py TIMEOUT 180)
e2e_test(e2e_engine_stall fast test_engine_stall.py TIMEOUT 180)
