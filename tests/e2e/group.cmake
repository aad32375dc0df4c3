e2e_test(e2e_group fast test_group.sh TIMEOUT 180)
