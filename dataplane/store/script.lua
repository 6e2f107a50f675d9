-- Decides calls, one behind the other, each as a whole. KEYS are those of all their claims, in order. ARGV is for each call the number
-- of its claims, and then six words for each of them:
--
--   r shadow cost most deepest least   a rate: take cost, if the debt is then at most `most`; before that it is at least `least`
--   l shadow places ttl id .           a place among those under way
--   a amount deepest . . .             add to a rate's debt (or take from it), whatever it is
--   z id . . . .                       give a place back
--   k id ttl . . .                     keep a place
--
-- Times are nanoseconds, but for ttl (milliseconds). What claims with a shadow (a word that they share) refuse hinders nobody, and then
-- none of them takes.
-- A rate is kept as the time at which it is fresh again, in microseconds on this server's clock; it expires then, and so does a place.
--
-- The answer is for each call 1 (all that enforce admit) or 0, and a number for each claim: the debt in microseconds or those under way,
-- after taking, or, when the claim would not admit, -1 minus it.
local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2] -- since 2026: a double then has steps of less than a hundredth

local function debt_of(key, deepest)
	local fresh = tonumber(redis.call('GET', key) or now) or now
	local debt = fresh - now
	if debt < 0 then return 0 end
	if debt > deepest then return deepest, true end
	return debt
end

local function set_debt(key, debt)
	if debt <= 0 then
		redis.call('DEL', key)
	else
		redis.call('SET', key, string.format('%.3f', now + debt), 'PX', math.ceil(debt / 1000))
	end
end

local answers, at, key = {}, 1, 0
while at <= #ARGV do
	local n = tonumber(ARGV[at])
	local admits, found, refused, shadows = true, {}, {}, {}
	at = at + 1
	for i = 1, n do
		local a, k = at + 6 * (i - 1), KEYS[key + i]
		local op = ARGV[a]
		if op == 'r' then
			local debt, cut = debt_of(k, ARGV[a + 4] / 1000)
			if ARGV[a + 5] / 1000 > debt then -- we have lost it, and who asks has not
				debt, cut = ARGV[a + 5] / 1000, true
			end
			if cut then set_debt(k, debt) end -- one that was larger once would be waited for again
			found[i] = debt
			refused[i] = debt + ARGV[a + 2] / 1000 > ARGV[a + 3] / 1000 + 1 -- a microsecond, for what rounding does
		elseif op == 'l' then
			redis.call('ZREMRANGEBYSCORE', k, '-inf', now)
			local last = now + ARGV[a + 3] * 1000
			for _, id in ipairs(redis.call('ZRANGEBYSCORE', k, '(' .. string.format('%.0f', last), '+inf')) do
				redis.call('ZADD', k, last, id) -- the clock was set back: a place of the dead would be held until it is there again
			end
			found[i] = redis.call('ZCARD', k)
			refused[i] = found[i] >= tonumber(ARGV[a + 2])
		end
		if refused[i] then
			if ARGV[a + 1] == '' then admits = false else shadows[ARGV[a + 1]] = true end
		end
	end
	answers[#answers + 1] = admits and 1 or 0
	for i = 1, n do
		local a, k = at + 6 * (i - 1), KEYS[key + i]
		local op = ARGV[a]
		local value = found[i] or 0
		if op == 'a' then
			local deepest = ARGV[a + 2] / 1000
			set_debt(k, math.min(math.max(debt_of(k, deepest) + ARGV[a + 1] / 1000, 0), deepest))
		elseif op == 'z' then
			redis.call('ZREM', k, ARGV[a + 1])
		elseif op == 'k' then
			redis.call('ZADD', k, now + ARGV[a + 2] * 1000, ARGV[a + 1])
			redis.call('PEXPIRE', k, ARGV[a + 2])
		elseif refused[i] or shadows[ARGV[a + 1]] then
			value = -1 - value
		elseif admits and op == 'r' then
			local cost = ARGV[a + 2] / 1000
			value = value + cost
			if cost > 0 then set_debt(k, value) end
		elseif admits and op == 'l' then
			redis.call('ZADD', k, now + ARGV[a + 3] * 1000, ARGV[a + 4])
			redis.call('PEXPIRE', k, ARGV[a + 3])
			value = value + 1
		end
		if value >= 0 then value = math.ceil(value) else value = math.floor(value) end
		answers[#answers + 1] = value
	end
	at = at + 6 * n
	key = key + n
end
return answers
