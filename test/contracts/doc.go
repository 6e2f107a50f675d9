// Package contracts proves the promises of the data plane's seams, and those of the cluster that a correct-looking build gets wrong,
// one by one, as a user, an engine or a filter would notice them: on the whole data plane, over loopback with wire/nethttp and, where
// bytes do not matter, with wire/mem. Tests are named after the contract that they prove; what a room proves by itself is not proved
// again, but stands in the table. TestTheTableIsTrueAndComplete holds the table to the tests that there are, and demands a row for each
// contract.
//
// A row is a contract, where it is proved, and by which tests: those of a package, a scenario (test/scenarios/testdata), or a golden of
// Build (controllers/translate/testdata). "not built" has a reason.
//
//	contract  where  tests
//	01        test/contracts TestContract01_AStormLeavesNothingBehind TestContract01_ATunnelEndsItsExchangeWhenBothSidesAreDone
//	01        test/contracts TestContract01_EachExchangeEndsExactlyOnce
//	01        dataplane/wire/nethttp TestTheEngineKeepsTheContract
//	01        dataplane/wire/mem TestTheEngineKeepsTheContract
//	01        dataplane/proxy TestWhatAnEngineRefusedByItselfOnlyEnds
//	01        dataplane/filter/ratelimit TestAPlaceIsGivenBackOnceWhateverHappens TestAPlaceIsGivenBackWhenALaterFilterPanics
//	01        test/churn TestNoRequestFailsOrSeesTwoSnapshotsWhileEverythingChanges
//	02        test/contracts TestContract02_StringsStayAfterTheConnectionHasServedOthers
//	03        test/contracts TestContract03_AClientThatLeavesIsNoticedWhileTheBackendIsSilent
//	03        test/contracts TestContract03_AnEarlyAnswerIsHeardWhileTheRequestIsStillBeingSent TestContract03_BothBodiesStreamAtOnce
//	03        dataplane/wire/nethttp TestTheEngineKeepsTheContract
//	03        dataplane/proxy TestAClientThatLeavesEndsTheAttempt
//	04        test/contracts TestContract04_ATimeoutIsAnsweredAndTheClientsConnectionServesOn TestContract04_TheContextOfAnExchangeIsItsOwn
//	04        test/contracts TestContract04_TheDeadlineOfOneRequestNeverKillsTheNextOnTheConnection
//	04        test/contracts TestContract04_ASilentAnswerIsNoWriteTimeout TestContract04_AClientThatListensIsNoBodyTimeout
//	04        dataplane/proxy TestTimeoutsEndAnAttemptAndARequest
//	04        scenario timeouts slow-clients idle-clients
//	05        test/contracts TestContract05_AFilterThatRefusesNeverCausesA100 TestContract05_AnUnreadBodyEndsTheConnectionOrIsDrained
//	05        test/contracts TestContract05_AtMostSixteen1xxArePassedOn TestContract05_TheBackends100IsAwaited
//	05        dataplane/wire/nethttp TestTheEngineKeepsTheContract
//	06        test/contracts TestContract06_ATunnelIsWaitedForInADrainAndThenCut TestContract06_ATunnelThatNobodyAskedForIsClosed
//	06        test/contracts TestContract06_ATunnelledConnectionNeverReturnsToAPool TestContract06_AnAnswerThatNobodyGetsLetsGoOfItsBackend
//	06        test/contracts TestContract06_BytesBehindThe101FollowOnBothSides
//	06        dataplane/wire/nethttp TestTheEngineKeepsTheContract
//	07        test/contracts TestContract07_AFieldThatARouteSetsHasNoTwin
//	07        test/contracts TestContract07_ARefusedPathSaysHowToAllowIt TestContract07_ThePathThatIsMatchedIsTheOneThatIsForwarded
//	07        test/contracts TestContract07_WhatBelongsToAHopOrIsOursNeverPasses
//	07        dataplane/wire/nethttp TestTheEngineKeepsTheContract
//	07        dataplane/message TestAPathHasOneSpelling TestAnAmbiguousPathIsRefused FuzzParseTarget TestAHostIsReadInOneWay
//	07        dataplane/message TestFramingFieldsAreKnownInEverySpelling
//	07        dataplane/router TestEverySpellingOfAHeaderHasOneVerdict
//	07        dataplane/proxy TestForwardedFieldsAreOurs
//	07        scenario smuggling-framing smuggling-lines smuggling-chunks paths-refused paths-normalised paths-allowed header-spoofing
//	07        scenario trusted-proxies host-grammar
//	08        test/contracts TestContract08_AMirrorReadsThePrefixAndNeverSlowsTheRequest
//	08        test/contracts TestContract08_AMirrorThatNeverEndsDoesNotHoldTheProcess TestContract08_AWrappedBodyGivesItsBudgetBack
//	08        test/contracts TestContract08_TheBudgetIsWholeAfterAStorm TestContract08_WithoutBudgetABodyIsForwardedButNotSentAgain
//	08        dataplane/message TestABodyThatIsHeldCanBeReadAgain TestTooLargeLosesNothing TestASpentBudgetLosesNothing
//	08        dataplane/message TestTheBudgetIsGivenBackAtTheEnd TestABufferedBodyIsSharedByAllWhoAsk
//	08        dataplane/proxy TestAMirrorGetsACopyAndNeverSlowsTheRequest
//	09        test/contracts TestContract09_AFilterOnABackendRefWithOtherFacesIsRefused TestContract09_WhatCannotBeBuiltFailsClosed
//	09        dataplane TestEachFilterStandsInTheList
//	09        golden filter-unserved filter-unserved-all
//	10        test/contracts TestContract10_AnAnswerOfAResponseFacePassesThoseFurtherOut
//	10        test/contracts TestContract10_RequestsMeetFiltersInOrderAndResponsesInReverse
//	10        golden filter-order
//	11        test/contracts TestContract11_PreRunsForEveryExchangeAndDefaultForWhatMatchesNothing
//	11        golden policy-levels
//	11        scenario ratelimit-no-route
//	12        test/contracts TestContract12_SlotsAreNumberedPerChainAndCleanForEachExchange
//	12        dataplane/filter/ratelimit TestAChainThatRunsTwiceHoldsOnePlace
//	13        test/contracts TestContract13_ARefusalOfAFilterIsNotTriedAgain TestContract13_ARetryAppliesNothingTwice
//	13        test/contracts TestContract13_ARetryWaitsForNobodyWhoWaitsForIt TestContract13_SilentRetriesOfATransportAreCounted
//	13        test/contracts TestContract13_WhatMayHaveReachedABackendIsNotSentAgain
//	13        dataplane/proxy TestARefusedConnectionIsTriedElsewhereWhateverTheMethod TestARouteSaysWhichCodesAreTriedAgain
//	13        dataplane/filter/headers TestOnABackendTheRequestPartActsOnTheAttemptOnly
//	13        dataplane/upstream TestEndpointsThatWereTriedAreNotTriedAgain
//	13        scenario retries retry-connection
//	14        test/contracts TestContract14_AFilterThatCallsOutFailsClosedWhileNothingCanBeCalled
//	14        test/contracts TestContract14_AForkSharesNothingAndGoesThreeDeep
//	14        dataplane TestABackendThatTheSnapshotDoesNotNameCannotBeCalled TestACallIsTriedOnTheNextEndpointWhenNoByteWasSent
//	14        dataplane TestACallEndsWithItsContext TestACallIsOverWithItsBody TestACallOfAnExchangeIsAForkOfIt
//	14        dataplane TestAHostOutsideIsCalledOverTLSAndNothingIsFollowed TestAHostOutsideThatCannotProveItsNameIsNotCalled
//	14        dataplane/upstream TestAnAddressThatLeadsInsideIsRefused TestANameThatTurnsInsideIsNoLongerCalled
//	15        not built: there is no cache yet
//	16        test/contracts TestContract16_ConnectionsAreSharedByTheirKeyAndNotByBackend
//	16        test/contracts TestContract16_OneBackendsFailuresDoNotHurtAnotherOnTheSameEndpoint
//	16        dataplane/upstream TestAnEndpointThatStaysKeepsItsLoadAndConnections TestAnEndpointThatLeavesIsRetiredWhenNobodyNamesItAnyMore
//	17        test/contracts TestContract17_AddressAndPortChangeTogether TestContract17_EndpointsThatWereToldBeforeServeFromTheFirstRequestOn
//	17        test/contracts TestContract17_NeverToldDiffersFromEmpty
//	17        dataplane/upstream TestABackendMayBeToldBeforeAPlanNamesIt TestNeverToldDiffersFromEmpty
//	17        controllers TestTheFirstObjectsAreServedWithTheirEndpointsFirst
//	18        test/contracts TestContract18_APanicWhileAThingIsMadeLeavesNothingBehind TestContract18_APolicyThatFlapsKeepsItsCounters
//	18        test/contracts TestContract18_WhatLeavesThePlanFinishesItsWork
//	18        dataplane TestACallerWorksWhenItsPlanIsGone
//	18        dataplane/keep TestAThingLivesAsLongAsItIsAskedFor
//	18        dataplane/filter/ratelimit TestAPolicyThatFlapsKeepsItsCounters
//	19        test/contracts TestContract19_AStreamThatOnlyUploadsIsNotIdle
//	19        test/contracts TestContract19_AStreamWithoutItsRuleIsClosedAfterTheGrace TestContract19_LongStreamsHoldNoPlan
//	19        dataplane/proxy TestAStreamWhoseRuleIsGoneEndsAfterTheGrace TestAStreamThatIdlesIsCut
//	20        test/contracts TestContract20_AConnectionInTheClearIsNotServedByHTTPS
//	20        test/contracts TestContract20_AConnectionIsHeldToTheListenerOfItsHandshake
//	20        test/contracts TestContract20_AConnectionThatProvedTooLittleIsNotServed
//	20        test/contracts TestContract20_TicketsSurviveAnApplyAndStayWithTheirListener
//	20        dataplane/listen TestWhatHoldsAndWhatDoesNot TestATicketOpensTheListenerThatSealedItAndNoOther
//	20        dataplane/listen TestAConnectionWithAnOldCertificateIsToldToLeaveAndOneWithoutListenerEnds
//	20        dataplane/listen TestCertificatesChangeUnderTrafficWithoutAFailedHandshake
//	20        dataplane/proxy TestAConnectionMadeForAnotherHostIsMisdirected
//	21        not built: it is a demand on our own engine, which comes later; net/http keeps a goroutine for each connection
//	22        test/contracts TestContract22_AStuckAccessLogDropsLinesAndHoldsNobody
//	22        dataplane/telemetry TestALogThatIsStuckHoldsNobodyAndDrops TestLinesThatCannotBeWrittenAreCounted
//	22        dataplane/telemetry TestCountingAnExchangeAllocatesNothing
//	22        cmd/gatehouse TestTheProcessStaysWithinItsContainer
//	22        test/churn TestNoRequestFailsOrSeesTwoSnapshotsWhileEverythingChanges
//	23        test/contracts TestContract23_HeadersOfAnAnswerNeverLeakAKey TestContract23_WhoLeavesAKeyOutSharesALimit
//	23        dataplane/expr TestAVariableSaysWhatTheExchangeHas TestWhatCostsTooMuchFailsWhileItRuns
//	23        dataplane/expr TestATextIsCompiledOnceAndTheMemoryHasABound TestTheNativeFormsSayWhatCELSays
//	23        dataplane/filter/ratelimit TestAnExpressionThatFailsNeverFreesFromALimit
//	23        golden policy-targets
//	24        test/contracts TestContract24_EachFieldOfTheAPIIsServedOrRefused TestContract24_WhatIsNotServedIsRefusedByName
//	24        golden tls-client-certificates tls-options backend-tls filter-external-auth settings-session-persistence
//	24        golden gateway-client-certificate listener-filters match-unknown
//	Cluster01 test/controller TestWhoLosesTheLeaseServesOnAndWritesNothing TestAnAPIServerThatIsAwayChangesNothingForTraffic
//	Cluster01 test/controller TestTheLeaseIsFreeBeforeTheDrain TestTheLeaseBelongsToTheReleaseAndNotToAnEarlierOne
//	Cluster01 test/e2e TestNoRequestFailsWhileTheAPIServerIsAway TestNoRequestFailsWhenTheLeaseIsTakenAway
//	Cluster02 test/controller TestTheProcessLeavesInOrder TestADrainingReplicaStillFollowsItsEndpoints
//	Cluster02 test/chart TestTheKubeletWaitsLongerThanTheDrain TestNoPodIsTakenAwayBeforeItsSuccessorServes
//	Cluster02 test/e2e TestNoRequestFailsWhileGatehouseRestartsAndTheBackendRolls
//	Cluster03 controllers TestNothingIsServedBeforeEverythingWasRead TestTheFirstSnapshotWaitsForAllAnswers
//	Cluster03 test/controller TestAReplicaThatStartsWithoutAnAPIServerIsNotReadyAndSaysWhy
//	Cluster03 test/controller TestAReplicaThatMayNotReadWhatItServesIsNotReadyAndNamesTheRight
//	Cluster03 test/controller TestAKindThatMayNotBeReadIsAnAnswerAndToldToTheOperator
//	Cluster03 test/e2e TestAPortThatCantBeBoundHarmsOnlyItsListener TestASecretThatIsForbiddenHarmsOnlyItsListener
//	Cluster04 test/e2e TestAReplicaThatIsKilledTakesOnlyItsOwnConnectionsAlong
//	Cluster05 controllers/infra TestAServiceIsWhatOperatorAndGatewayWant TestAnAliasGivesANameInTheGatewaysNamespace
//	Cluster05 controllers/infra TestNamesAreOnesThatTheAPIServerTakes TestNamesThatAreAlikeDiffer
//	Cluster05 controllers/infra TestTheAliasOfAGatewayInOurNamespaceIsNoServiceOfOurs TestWhatAGatewayCannotHaveIsToldInItsFacts
//	Cluster05 test/writers TestWritersAgainstARealAPIServer
//	Cluster06 controllers/infra TestTheRecordIsReadAsItWasWritten TestAFreedPortRestsBeforeAnotherGatewayGetsIt
//	Cluster06 controllers/infra TestATargetPortThatSomebodyChangedIsRepaired TestAFullRangeIsTold TestARecordThatSomebodyDeletesCountsOn
//	Cluster06 controllers/infra TestAPodPortToWhichAServiceSendsIsGivenToNobodyElse
//	Cluster06 test/writers TestWritersAgainstARealAPIServer
//	Cluster06 test/e2e TestTwoGatewaysWithTheSamePortsNeverSeeEachOther
//	Cluster07 controllers/infra TestAPortIsRecordedThenBoundThenPublished TestWhatIsPublishedIsNotWithdrawn
//	Cluster07 controllers/infra TestASocketServesWhenAllReplicasHaveBoundItAndItIsPublished
//	Cluster07 controllers/members TestASocketIsBoundWhenEveryReadyReplicaSaysSo TestAReplicaWritesOnlyWhatChanges
//	Cluster07 test/e2e TestANewGatewayIsServedByAllReplicasWhenItIsProgrammed TestANewListenerIsServedByAllReplicasWhenItIsProgrammed
//	Cluster08 controllers/infra TestWhatHasNotOurOwnerIsNotTouched TestATakenNameIsTold TestWithoutItsOwnerNothingIsMade
//	Cluster08 controllers/infra TestAServiceGoesOnlyWhenItsGatewayIsKnownToBeGone TestAServiceKeepsItsLastPortUntilThereIsAnother
//	Cluster08 controllers/infra TestWhatOthersPutOnAServiceIsNoReasonToWrite
//	Cluster08 test/chart TestTheLifeOfARelease
//	Cluster08 test/e2e TestZHelmInstallServesAfterSecondsAndUninstallLeavesNoBalancerBehind
//	Cluster09 controllers/infra TestAddressesAreThoseUnderWhichAServiceIsReached TestAddressesCanBeAskedForOutOfThePool
//	Cluster10 controllers/infra TestWhatAGatewayCannotHaveIsToldInItsFacts
//	Cluster10 test/writers TestWritersAgainstARealAPIServer
//	Cluster10 test/e2e TestAQuotaHarmsOnlyTheGatewayThatItStops
//	Cluster11 controllers/infra TestOnHostsTheAddressesAreThoseOfTheNodes TestOnHostsWhatWasMadeForServicesGoesAndTheRecordStays
//	Cluster11 test/chart TestOnlyPortsBelow1024OfANodeNeedUser0 TestNoPodIsTakenAwayBeforeItsSuccessorServes
//	Cluster11 test/e2e TestListenersMoveToTheNodesAndBackAndServicesFollow
//	Cluster11 golden gateway-address-taken
//	Cluster12 test/chart TestTheNetworkPolicyOpensThePodPortsOfListeners TestTheHealthPortIsTheSameEverywhere
//	Cluster13 test/contracts TestCluster13_PendingIsNotAbsent
//	Cluster13 golden pending-absent pending-new pending-service pending-secret pending-secret-new pending-grant-lost
//	Cluster13 golden pending-secret-grant-lost pending-detached
//	Cluster13 controllers/translate TestWhatIsReferredToIsListedAndWhatHasNoAnswerIsWanted
//	Cluster14 controllers/watch TestOnlyWhatIsWantedIsWatched TestManyNamesOfANamespaceAreOneWatch TestRightsToSomeNamesAreEnough
//	Cluster14 controllers/watch TestARightThatIsTakenAwayIsAnAnswerAfterAWhile TestARefusalIsAnAnswerAfterPatienceAndLaterForWhatWasRead
//	Cluster14 test/controller TestASecretThatMayNotBeReadHurtsItsListenerAloneAndNamesTheRule TestAPendingSecretKeepsTheLastGood
//	Cluster14 test/controller TestASecretIsRotatedWithoutAFailure
//	Cluster14 test/chart TestEachWayOfRbacSecretsGrantsWhatItSays TestNoRightIsDangerous
//	Cluster14 test/e2e TestASecretThatIsForbiddenHarmsOnlyItsListener TestNoRequestFailsWhileACertificateIsRotated
//	Cluster15 test/contracts TestCluster15_DrainingEndpointsServeWhenNoOtherIsThere
//	Cluster15 test/contracts TestCluster15_LoopbackAndLinkLocalAreRefusedAtTheDoorOfTheDataPlane
//	Cluster15 controllers/endpoints TestABackendHasTheEndpointsOfAllSlices TestAddressesThatLeadBackAreRefusedAndNamed
//	Cluster15 controllers TestEndpointsTakeTheShortWay TestABackendIsEmptiedWhenThePlanHasForgottenIt
//	Cluster15 dataplane/upstream TestDrainingEndpointsServeOnlyWhenNoOtherIsThere TestRefusedAddressesAreNeverPicked
//	Cluster15 scenario draining-endpoints
//	Cluster16 test/controller TestAKindComesAndGoesWithItsCRD
//	Cluster16 test/e2e TestACRDThatIsDeletedHarmsOnlyItsRoutes
//	Cluster17 controllers TestOnlyWhatIsReadStaysInMemory TestNoClientOfOursSlowsItselfDown
//	Cluster17 test/e2e TestARouteIsServedWithinMoments
//	Cluster18 controllers/status TestEntriesOfRoutesAndPoliciesAreMerged TestAWriteThatLosesARaceIsMergedOnceMore
//	Cluster18 controllers/status TestAnswersOfANewerGenerationStay TestAThousandStatusesThatSayTheSameAreNotWritten
//	Cluster18 controllers/status TestARefusedWriteIsTriedAgainAndDoesNotHoldUpOthers TestNothingIsWrittenByOneWhoDoesNotLead
//	Cluster18 test/writers TestWritersAgainstARealAPIServer
//	Cluster19 test/controller TestWhatOthersDoCostsNothing
//	Cluster19 controllers TestOnlyWhatIsDifferentIsApplied TestChangesThatComeMeanwhileAreOneBatch
//	Cluster20 not built: Build is whole each time; with 5,000 routes it takes 32 ms (BenchmarkBuild), so that nothing asks for less yet
//	Cluster21 test/contracts TestCluster21_TheSocketThatAcceptedChoosesTheGateway
//	Cluster21 controllers/source TestIdentityIsAFunctionOfNameAndContent TestTheOldestIsTheFirstInTheFiles
//	Cluster21 dataplane/listen TestAConnectionBelongsToTheSocketThatAcceptedIt TestTwoGatewaysOnOneAddressTheFirstWinsAndTheOtherIsToldByWhom
//	Cluster21 scenario two-gateways
//	Cluster21 golden gateway-address-taken
//	Cluster22 controllers/source TestAnInvalidObjectIsRefusedWithItsMessageAndLine TestDefaultsAreThoseOfTheCRDs
//	Cluster22 controllers/source TestTheEmbeddedSchemasAreThoseOfTheKinds TestABrokenFileKeepsItsLastGoodObjects TestAFieldPathLeadsToItsLine
//	Cluster22 test/apiserver TestTheAPIServerAndTheFilesAgree
//	Cluster23 test/contracts TestCluster23_TheDefaultsOfThePageAreTheDefaults
//	Cluster23 cmd/gatehouse TestEachSettingHasAFlagOfItsOwn TestEachFlagIsAKeyOfTheConfigFile TestAWrongConfigFileIsToldWithItsLine
//
// What is promised in part. 03: a client of HTTP/1 that leaves is not noticed while its body is not read, after Expect without a 100 or
// when more than 64 KiB of it wait. 14: Call and outbound are not built, Fork and the empty seam are. 16: there is no ejection, breaker
// or TLS to backends yet. 18: an endpoint that leaves closes its idle connections at once, and is not revived. 19: there is no identity
// that could expire. 20: ticket keys are random, of one process. 22: GOGC is left alone. Cluster03 goes further than its text: who may not
// read GatewayClasses, Gateways, HTTPRoutes, Services, EndpointSlices or policies that decide about access is not ready, until it may. What
// is broken and known stands in open_test.go, behind the build tag open.
//
// Limits. Tests of time use settings of milliseconds; nothing here measures speed. The whole takes about twenty seconds, more with the
// race detector. No test here needs a cluster; those of test/e2e and test/chart, which the table names, do (make e2e, make chart-test).
package contracts
